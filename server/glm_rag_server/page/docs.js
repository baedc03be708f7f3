// Shows /openapi.json: every address with its parameters, bodies and answers, and a way to try it.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
let spec = {};

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Text in which `this` is code.
function said(text) {
  return (text || "").split("`").map((part, at) => (at % 2 ? make("code", {}, part) : part));
}

function resolve(schema) {
  let found = schema || {};
  for (let depth = 0; found.$ref && depth < 20; depth += 1) {
    found = found.$ref.slice(2).split("/").reduce((at, part) => (at || {})[part], spec) || {};
  }
  return found;
}

function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  const several = schema.anyOf || schema.oneOf;
  if (several) return several.map(kind).join(" | ");
  if (schema.type === "array") return `[${kind(schema.items || {})}]`;
  return schema.type || "any";
}

function refs(schema) {
  if (schema.$ref) return [schema];
  return [...(schema.anyOf || []), ...(schema.oneOf || []), ...(schema.items ? [schema.items] : [])].flatMap(refs);
}

function fields(schema, depth = 0, seen = []) {
  const whole = resolve(schema);
  const box = make("div", depth ? { class: "deep" } : {});
  for (const [name, field] of Object.entries(whole.properties || {})) {
    const needed = (whole.required || []).includes(name) ? " (required)" : "";
    const row = make("div", {}, make("code", {}, name), ` ${kind(field)}${needed}`);
    if (field.description) row.append(" – ", ...said(field.description));
    box.append(row);
    for (const inner of refs(field)) {
      const target = resolve(inner);
      if (target.properties && depth < 4 && !seen.includes(inner.$ref)) {
        box.append(fields(inner, depth + 1, [...seen, inner.$ref]));
      }
    }
  }
  return box;
}

function contents(title, content) {
  const box = make("div", {}, make("h4", {}, title));
  for (const [type, { schema }] of Object.entries(content || {})) {
    box.append(make("p", {}, make("code", {}, type), ` ${schema ? kind(schema) : ""}`));
    if (schema) box.append(fields(schema));
  }
  return box;
}

function sample(schema, depth = 0) {
  const whole = resolve(schema);
  if (depth > 4) return null;
  if (whole.default !== undefined && whole.default !== null) return whole.default;
  if (whole.enum) return whole.enum[0];
  const several = whole.anyOf || whole.oneOf;
  if (several) return sample(several[0], depth + 1);
  if (whole.type === "object" || whole.properties) {
    const needed = (whole.required || []).map((name) => [name, sample(whole.properties[name], depth + 1)]);
    return Object.fromEntries(needed);
  }
  if (whole.type === "array") return [sample(whole.items || {}, depth + 1)];
  return { string: "", integer: 1, number: 0, boolean: false }[whole.type] ?? null;
}

function tryIt(path, method, operation) {
  const form = make("form", {}, make("h4", {}, "Try it"));
  const inputs = (operation.parameters || []).map((parameter) => {
    const input = make("input", { placeholder: parameter.name });
    form.append(make("p", {}, make("label", {}, `${parameter.name} `, input)));
    return [parameter, input];
  });
  const json = operation.requestBody?.content?.["application/json"];
  const body = json && make("textarea", {});
  if (body) {
    body.value = JSON.stringify(sample(json.schema), null, 2);
    form.append(body);
  }
  const other = operation.requestBody && !json;
  if (other) return make("p", {}, "Sends a file: use curl, as in docs/server.md.");
  const result = make("pre", {});
  form.append(make("button", {}, "Send"), result);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    await send(path, method, inputs, body, result);
  });
  return form;
}

async function send(path, method, inputs, body, result) {
  let address = path;
  const query = new URLSearchParams();
  for (const [parameter, input] of inputs) {
    if (parameter.in === "path") address = address.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
    else if (parameter.in === "query" && input.value) query.set(parameter.name, input.value);
  }
  const headers = body ? { "content-type": "application/json" } : {};
  const key = document.getElementById("key").value.trim();
  if (key) headers.authorization = `Bearer ${key}`;
  if (String(query)) address += `?${query}`;
  result.textContent = "…";
  try {
    const reply = await fetch(address.slice(1), { method: method.toUpperCase(), headers, body: body ? body.value : undefined });
    const text = await reply.text();
    let shown = text;
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not JSON */ }
    result.textContent = `${reply.status}\n${shown}`;
  } catch (error) {
    result.textContent = String(error);
  }
}

function route(path, method, operation) {
  const summary = make("summary", {}, make("span", { class: "method" }, method.toUpperCase()), make("code", {}, path), operation.summary || "");
  const box = make("div", {}, make("p", {}, ...said(operation.description)));
  for (const parameter of operation.parameters || []) {
    const text = ` (${parameter.in}) ${kind(parameter.schema || {})} `;
    box.append(make("div", {}, make("code", {}, parameter.name), text, ...said(parameter.description)));
  }
  if (operation.requestBody) box.append(contents("Request", operation.requestBody.content));
  for (const [status, reply] of Object.entries(operation.responses || {})) {
    if (status < "400") box.append(contents(`Answer ${status}: ${reply.description || ""}`, reply.content));
    else box.append(make("div", {}, make("code", {}, status), " ", ...said(reply.description)));
  }
  box.append(tryIt(path, method, operation));
  return make("details", { class: "route" }, summary, box);
}

async function show() {
  const main = document.getElementById("routes");
  spec = await (await fetch("openapi.json")).json();
  const groups = new Map();
  for (const [path, item] of Object.entries(spec.paths)) {
    for (const method of METHODS.filter((one) => item[one])) {
      const name = (item[method].tags || ["Other"])[0];
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(route(path, method, item[method]));
    }
  }
  main.replaceChildren();
  const described = (spec.tags || []).map((tag) => [tag.name, tag.description]);
  for (const [name, text] of [...described, ["Other", ""]].filter(([one]) => groups.has(one))) {
    main.append(make("h2", {}, name), make("p", {}, ...said(text)), ...groups.get(name));
  }
}

show().catch((error) => { document.getElementById("routes").textContent = String(error); });

"""Files into a knowledge base: from the browser, from a folder of the server; how far it is."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import streamlit as st

from glm_rag.errors import ConfigError, GlmRagError
from glm_rag.types import IngestProgress
from glm_rag_ingest.loaders.suffixes import BY_SUFFIX
from glm_rag_ingest.places import MissingPathError, allowed_path
from glm_rag_ui import evidence, failures, render, shelf, uploads
from glm_rag_ui.i18n import Translate
from glm_rag_ui.runs import SHARED, Batch, Run
from glm_rag_ui.shell import Visit

_LOOK_SECONDS = 1.0
_ROUND = "kb-upload-round"
FILE_TYPES = sorted(suffix.removeprefix(".") for suffix in BY_SUFFIX)


def section(visit: Visit) -> None:
    """Choose what to add."""
    t = visit.t
    number = st.session_state.get(_ROUND, 0)
    files = st.file_uploader(
        t("upload"),
        type=FILE_TYPES,
        accept_multiple_files=True,
        key=f"kb-files-{number}",
        help=t("upload_help"),
    )
    st.html(f'<p class="gr-figures">{t("upload_formats")}</p>')
    if files:
        try:
            target = uploads.folder(visit.settings.home, visit.kb)
            paths = tuple(uploads.save(file, target) for file in uploads.distinct(files))
        except (GlmRagError, OSError) as error:
            st.html(failures.notice(error, t))
            return
        st.session_state[_ROUND] = number + 1  # another key empties the picker
        begin(visit, Batch(visit.settings, paths))
    server_folder(visit)


def server_folder(visit: Visit) -> None:
    """A folder of the computer that glm-rag runs on, if its owner allows any."""
    t, allowed = visit.t, visit.settings.ui.allowed_folders
    st.html(f'<h3 class="gr-section">{t("server_folder")}</h3>')
    if not allowed:
        code = "ui:\n  allowed_folders: [/srv/documents]"
        st.html(
            f'<p class="gr-figures">{t("server_folder_none")}</p>'
            f"<pre><code>{render.escape(code)}</code></pre>"
        )
        return
    with st.form("server-folder", border=False):
        typed = st.selectbox(
            t("server_folder"),
            [str(folder) for folder in allowed],
            accept_new_options=True,
            label_visibility="collapsed",
        )
        is_sent = st.form_submit_button(t("server_folder_read"), icon=":material/folder_open:")
    st.html(f'<p class="gr-figures">{t("server_folder_help")}</p>')
    if not is_sent:
        return
    try:
        path = allowed_path(typed or "", allowed)
    except ConfigError as error:
        words = "folder_missing" if isinstance(error, MissingPathError) else "folder_outside"
        folders = ", ".join(map(str, allowed))
        st.html(render.notice("error", t(words), t("folder_allowed", folders=folders)))
        return
    begin(visit, Batch(visit.settings, (path,), within=allowed))


def begin(visit: Visit, *batches: Batch) -> None:
    """Hand batches to the server and show the page anew, with their progress."""
    SHARED.add(visit.kb, *batches)
    st.rerun()


def read_again(visit: Visit, paths: tuple[Path, ...]) -> None:
    """Read files that the knowledge base knows once more."""
    settings = visit.settings
    groups: defaultdict[tuple[Path, ...], list[Path]] = defaultdict(list)
    for path in paths:
        groups[shelf.bounds(settings, path)].append(path)
    begin(
        visit,
        *(Batch(settings, tuple(group), within, True) for within, group in groups.items()),
    )


# ---------------------------------------------------------------- the run


def running(visit: Visit) -> None:
    """How far the ingestion is, or what came of it; nothing where there was none."""
    run = SHARED.get(visit.settings.home, visit.kb)
    if run is None:
        return
    if run.is_over:
        outcome(visit, run)
    else:
        st.fragment(under_way, run_every=_LOOK_SECONDS)(visit.t, run)


def under_way(t: Translate, run: Run) -> None:
    """A bar, the file at hand, a button to stop; drawn anew every second."""
    if run.is_over:
        st.rerun()
    now = run.progress
    with st.container(key="run"):
        st.progress(share(now), text=standing(now, t))
        current = render.file_name(now.current) if now and now.current else ""
        st.html(f'<p class="gr-figures gr-current"><bdi>{render.escape(current)}</bdi>&nbsp;</p>')
        if run.is_stopping:
            st.html(f'<p class="gr-figures">{t("stopping")}</p>')
        else:
            st.button(
                t("stop"), icon=":material/stop_circle:", on_click=run.stop, help=t("stop_help")
            )


def share(now: IngestProgress | None) -> float:
    """The part that is done, 0 to 1, by bytes."""
    if now is None or not now.total:
        return 0.0
    done, total = (now.bytes_done, now.bytes_total) if now.bytes_total else (now.done, now.total)
    return min(1.0, done / total)


def standing(now: IngestProgress | None, t: Translate) -> str:
    """One line: files done, passages, rate, time left."""
    if now is None:
        return t("ingest_starting")
    parts = [t("ingest_count", done=now.done, total=now.total), t("passages", n=now.num_chunks)]
    if now.rate:
        parts.append(t("ingest_rate", rate=f"{now.rate:.1f}"))
    if now.seconds_left:
        parts.append(t("time_left", time=duration(now.seconds_left, t)))
    return " · ".join(parts)


def duration(seconds: float, t: Translate) -> str:
    """Seconds, minutes or hours, rounded."""
    if seconds < 90:
        return t("seconds", n=max(1, round(seconds)))
    minutes = round(seconds / 60)
    return t("minutes", n=minutes) if minutes < 90 else t("hours", n=round(minutes / 60))


def outcome(visit: Visit, run: Run) -> None:
    """What was added, what was not and why; what can be done next."""
    t, report = visit.t, run.report
    if run.error is not None:
        st.html(failures.notice(run.error, t))
    stopped = run.is_stopping and report.interrupted
    if stopped:
        st.html(render.notice("info", t("run_stopped"), t("run_stopped_text")))
    if run.error is None or report.changes or report.num_skipped:
        st.html(evidence.report(report, t))
    with st.container(horizontal=True):
        if stopped or run.error is not None:
            again = t("go_on") if stopped else t("try_again")
            if st.button(again, icon=":material/play_circle:", type="primary"):
                # Each within its own bounds.
                begin(visit, *(replace(batch, settings=visit.settings) for batch in run.batches))
        st.button(t("dismiss"), on_click=SHARED.dismiss, args=(visit.settings.home, visit.kb))

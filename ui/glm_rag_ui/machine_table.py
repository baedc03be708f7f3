"""The state of the machine as HTML. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from glm_rag.settings import Settings
from glm_rag_ui import render
from glm_rag_ui.i18n import Translate

if TYPE_CHECKING:
    from glm_rag.diagnosis import Finding
    from glm_rag.machine import Machine


def table(machine: Machine, settings: Settings, t: Translate) -> str:
    """What is used and what is left."""
    threads = t("mac_threads", n=machine.threads, cores=machine.cores)
    rows = {
        "mac_memory": t(
            "mac_memory_text", used=size(machine.process_bytes), free=size(machine.free_bytes)
        ),
        "mac_device": f"{machine.device} · {threads}",
        "mac_backend": machine.backend,
        "mac_models": ", ".join(machine.models) or t("mac_none"),
        "mac_cache": _cache(machine, settings, t),
        "mac_home": t("mac_home_text", folder=settings.home, free=size(machine.disk_bytes)),
        "mac_versions": " · ".join(f"{name} {number}" for name, number in machine.versions.items()),
    }
    cells = "".join(
        f"<dt>{t(key)}</dt><dd>{render.escape(value)}</dd>" for key, value in rows.items()
    )
    return f'<dl class="gr-machine">{cells}</dl>'


def findings(found: Sequence[Finding], t: Translate) -> str:
    """What `glm-rag doctor` has to say but "ok"."""
    notable = [finding for finding in found if finding.status != "ok"]
    if not notable:
        return render.notice("done", t("mac_fine"))
    kinds = {"warning": "warn", "error": "error"}
    return f"<h3>{t('mac_findings')}</h3>" + "".join(
        render.notice(kinds[finding.status], finding.subject, finding.detail) for finding in notable
    )


def size(number: int | None) -> str:
    """Bytes for people, in decimal units."""
    if number is None:
        return "?"
    value = float(number)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit in {"B", "KB", "MB"} else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _cache(machine: Machine, settings: Settings, t: Translate) -> str:
    cache = settings.cache
    if not cache.enabled:
        return t("mac_cache_off")
    return t(
        "mac_cache_text",
        memory=size(machine.cache_bytes),
        memory_limit=size(cache.memory_mb * 10**6),
        disk=size(machine.cache_files),
        disk_limit=size(cache.disk_mb * 10**6),
    )

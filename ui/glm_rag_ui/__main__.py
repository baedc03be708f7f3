"""`python -m glm_rag_ui` is `glm-rag ui`."""

from __future__ import annotations

import sys

from glm_rag.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "ui")
    main()

"""Parts of the page of knowledge bases: one module each, one function that draws it."""

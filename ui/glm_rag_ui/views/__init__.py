"""The pages: linear scripts, one function `page(visit)` each.

Not called `pages`: files in a folder of that name are pages to Streamlit by themselves.
"""

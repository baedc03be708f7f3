"""The Streamlit knowledge-base chat."""

"""Browser pages that use the client, built with Gradio and Streamlit, which are in a separate virtual environment."""

"""Pages for the browser on top of client/: Gradio and Streamlit. They run in an environment of their own."""

"""The report on an artifact: its facts, gathered by lowering it once more, and the page that shows them."""

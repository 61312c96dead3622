"""The measured end of a pipeline: latencies and one offline HTML page that shows everything."""

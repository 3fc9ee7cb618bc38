"""The results: tables, figures and the report, made from the JSON files of an experiment."""

"""Any SavedModel that scores records: loading it, inference, the submission file, bundles. Needs no model code."""

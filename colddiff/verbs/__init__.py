"""The verbs of `submit`: one subpackage each, discovered in this package."""

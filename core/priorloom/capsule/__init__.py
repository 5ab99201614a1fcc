"""The capsule of a comparison: what was run on what by what (`recording`), what that is (`contents`, `sources`,
`environment`), and how another run of it compares (`reproduction`)."""

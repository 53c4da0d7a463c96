//! `crd`: the CustomResourceDefinition as YAML.

use std::io::Write;

use crate::api::v1alpha1;

/// Prints it.
pub(super) fn print() -> Result<(), String> {
    let yaml = v1alpha1::crd_yaml()
        .map_err(|error| format!("the CRD can't be written as YAML: {error}"))?;
    std::io::stdout()
        .write_all(yaml.as_bytes())
        .map_err(|error| format!("the CRD can't be printed: {error}"))
}

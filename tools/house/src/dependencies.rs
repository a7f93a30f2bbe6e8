//! Licences, bans and sources of everything that is linked.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::{Complaints, licence};

/// What `deny.toml` allows, as far as this check reads it.
#[derive(Debug, Deserialize)]
pub struct Policy {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Bans {
    multiple_versions: Severity,
    wildcards: Severity,
    #[serde(default)]
    deny: Vec<Named>,
    #[serde(default)]
    skip: Vec<Named>,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Severity {
    Deny,
    Warn,
    Allow,
}

#[derive(Debug, Deserialize)]
struct Named {
    #[serde(rename = "crate")]
    name: String,
}

/// What `cargo metadata` says, as far as this check reads it.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    dependencies: Vec<Requirement>,
}

#[derive(Debug, Deserialize)]
struct Requirement {
    name: String,
    req: String,
    path: Option<String>,
}

impl Policy {
    /// The policy that `text`, the content of `deny.toml`, states.
    ///
    /// # Errors
    /// If it is not understood; the message says where.
    pub fn read(text: &str) -> Result<Policy, String> {
        toml::from_str(text).map_err(|error| format!("deny.toml: {error}"))
    }
}

impl Metadata {
    /// The packages that `text`, the output of `cargo metadata`, lists.
    ///
    /// # Errors
    /// If it is not understood.
    pub fn read(text: &str) -> Result<Metadata, String> {
        serde_json::from_str(text).map_err(|error| format!("cargo metadata: {error}"))
    }

    /// How many packages there are.
    pub fn packages(&self) -> usize {
        self.packages.len()
    }
}

/// What `policy` does not allow among `metadata`.
pub fn check(policy: &Policy, metadata: &Metadata) -> Complaints {
    let mut complaints = Vec::new();
    for package in &metadata.packages {
        licence_of(policy, package, &mut complaints);
        source_of(metadata, package, &mut complaints);
        bans_on(policy, metadata, package, &mut complaints);
    }
    versions(policy, metadata, &mut complaints);
    complaints
}

fn licence_of(policy: &Policy, package: &Package, complaints: &mut Complaints) {
    let Some(expression) = &package.license else {
        complaints.push(format!("{} {} states no licence", package.name, package.version));
        return;
    };
    let exception = policy.licenses.exceptions.iter().find(|exception| exception.name == package.name);
    let allowed = |name: &str| {
        policy.licenses.allow.contains(name)
            || exception.is_some_and(|exception| exception.allow.contains(name))
    };
    match licence::satisfied(expression, &allowed) {
        Ok(true) => {}
        Ok(false) => complaints.push(format!(
            "{} {}: `{expression}` is not among licenses.allow",
            package.name, package.version
        )),
        Err(error) => complaints.push(format!("{} {}: {error}", package.name, package.version)),
    }
}

fn source_of(metadata: &Metadata, package: &Package, complaints: &mut Complaints) {
    let own = metadata.workspace_members.contains(&package.id);
    let registry = package.source.as_deref().is_some_and(|source| source.starts_with("registry+"));
    if !own && !registry {
        let source = package.source.as_deref().unwrap_or("a path outside the workspace");
        complaints.push(format!("{} {} comes from {source}", package.name, package.version));
    }
}

fn bans_on(policy: &Policy, metadata: &Metadata, package: &Package, complaints: &mut Complaints) {
    if policy.bans.deny.iter().any(|banned| banned.name == package.name) {
        complaints.push(format!("{} {} is banned", package.name, package.version));
    }
    if policy.bans.wildcards == Severity::Deny && metadata.workspace_members.contains(&package.id) {
        for requirement in package.dependencies.iter().filter(|one| one.req == "*" && one.path.is_none()) {
            complaints.push(format!("{} takes any version of {}", package.name, requirement.name));
        }
    }
}

fn versions(policy: &Policy, metadata: &Metadata, complaints: &mut Complaints) {
    if policy.bans.multiple_versions != Severity::Deny {
        return;
    }
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in &metadata.packages {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        if !policy.bans.skip.iter().any(|skipped| skipped.name == **name) {
            let list: Vec<&str> = versions.iter().copied().collect();
            complaints.push(format!("{name} is there in {} versions: {}", versions.len(), list.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
        [licenses]
        allow = ["MIT"]
        exceptions = [{ crate = "odd", allow = ["NCSA"] }]
        [bans]
        multiple-versions = "deny"
        wildcards = "deny"
        deny = [{ crate = "unwanted" }]
        skip = [{ crate = "known" }]
    "#;

    fn complaints(packages: &[(&str, &str, &str, &str)]) -> Complaints {
        let packages: Vec<String> = packages
            .iter()
            .map(|(name, version, license, source)| {
                format!(
                    r#"{{"id": "{name} {version}", "name": "{name}", "version": "{version}", "license": {license},
                        "source": {source}, "dependencies": []}}"#
                )
            })
            .collect();
        let own = r#"{"id": "own", "name": "own", "version": "1.0.0", "license": "MIT", "source": null,
            "dependencies": [{"name": "any", "req": "*", "path": null}, {"name": "sister", "req": "*", "path": "x"}]}"#;
        let text =
            format!(r#"{{"packages": [{own}, {}], "workspace_members": ["own"]}}"#, packages.join(", "));
        check(&Policy::read(POLICY).unwrap(), &Metadata::read(&text).unwrap())
    }

    const REGISTRY: &str = r#""registry+somewhere""#;

    #[test]
    fn what_the_policy_allows_passes_and_a_wildcard_does_not() {
        let found = complaints(&[
            ("fine", "1.0.0", r#""MIT OR GPL-3.0""#, REGISTRY),
            ("odd", "1.0.0", r#""MIT AND NCSA""#, REGISTRY),
            ("known", "1.0.0", r#""MIT""#, REGISTRY),
            ("known", "2.0.0", r#""MIT""#, REGISTRY),
        ]);
        assert_eq!(found, ["own takes any version of any"]);
    }

    #[test]
    fn each_breach_is_named() {
        let found = complaints(&[
            ("copyleft", "1.0.0", r#""GPL-3.0""#, REGISTRY),
            ("silent", "1.0.0", "null", REGISTRY),
            ("foreign", "1.0.0", r#""MIT""#, r#""git+somewhere""#),
            ("outside", "1.0.0", r#""MIT""#, "null"),
            ("unwanted", "1.0.0", r#""MIT""#, REGISTRY),
            ("twice", "1.0.0", r#""MIT""#, REGISTRY),
            ("twice", "2.0.0", r#""MIT""#, REGISTRY),
        ]);
        for word in ["copyleft", "silent", "foreign", "outside", "unwanted", "twice"] {
            assert_eq!(found.iter().filter(|line| line.contains(word)).count(), 1, "{word} in {found:#?}");
        }
    }

    #[test]
    fn a_policy_that_is_not_understood_is_refused() {
        assert!(Policy::read("[licenses]\nallow = 3").is_err());
        assert!(Policy::read("[bans]").is_err());
    }
}

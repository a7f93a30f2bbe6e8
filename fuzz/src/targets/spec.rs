//! The text that names a stack.

use wadjet::stack::property::{Properties, Property};
use wadjet::stack::registry::Registry;
use wadjet::stack::spec::{LAYERS_MAX, Spec};

use crate::Target;

/// [`Spec::parse`] and [`Spec::check`].
pub(super) const SPEC: Target = Target {
    name: "spec",
    what: "a specification prints as it was written; whatever is wrong with one is said with a place inside the text",
    weight: 1,
    seeds: || {
        let seeds = [
            "STABLE:FC:UNICAST:LOCAL:NAK:CHKSUM:COM",
            "STABLE:NAK:COM",
            "TRACE:COUNT:CHK_FIFO:NAK(window=512):CHKSUM:COM",
            "FC(window=1,window=2):NAK(window=x):COM",
            "COM:COM",
            "(,=):",
        ];
        seeds.map(|seed| seed.as_bytes().to_vec()).to_vec()
    },
    run: |input| {
        let text = String::from_utf8_lossy(input);
        let spec = match Spec::parse(&text) {
            Ok(spec) => spec,
            Err(error) => {
                assert!(error.at <= text.len() && text.is_char_boundary(error.at));
                assert!(!error.to_string().is_empty());
                return;
            }
        };
        assert_eq!(spec.to_string(), text);
        assert!((1..=LAYERS_MAX).contains(&spec.layers.len()));
        let registry = Registry::standard();
        for network in [Properties::NONE, Properties::of(&[Property::Integrity])] {
            match spec.check(&registry, network) {
                Ok(checked) => {
                    assert_eq!(checked.len(), spec.layers.len());
                    for ((entry, _), named) in checked.iter().zip(&spec.layers) {
                        assert_eq!(entry.name, named.name);
                        if let Err(error) = (entry.make)(&named.parameters) {
                            assert!(named.parameters.pairs().iter().any(|(name, _)| *name == error.name));
                        }
                    }
                }
                Err(error) => {
                    assert!(spec.layers.iter().any(|layer| layer.at == error.at), "{error}");
                    assert!(error.to_string().contains(&*text));
                }
            }
        }
    },
};

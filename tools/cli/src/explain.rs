//! `wadjet explain`.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use wadjet::layers::DEFAULT_STACK;
use wadjet::stack::explain::{Explanation, explain};
use wadjet::stack::property::Properties;
use wadjet::stack::registry::Registry;
use wadjet::wire::layout::Place;
use wadjet_bench::plan::TransportKind;

use crate::live;

/// Which stack, and for whom.
#[derive(Args, Debug)]
pub(crate) struct ExplainOptions {
    /// The stack, top to bottom [default: the default stack, or with --live the one that runs]
    #[arg(value_name = "SPEC")]
    stack: Option<String>,
    /// Ask a running member what its plans did and why they were missed: one that was started with a window at PATH
    /// (`wadjet node --window PATH`, `wadjet::runtime::Window`)
    #[arg(long, value_name = "PATH")]
    live: Option<PathBuf>,
    /// Members of the view
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(1..=128))]
    members: u16,
    /// The transport beneath; memory and shm keep bytes whole by themselves
    #[arg(long, value_enum, default_value = "udp")]
    transport: TransportKind,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Prints the explanation.
///
/// # Errors
/// If the stack is refused; the text points at the layer and says what is missing.
pub(crate) fn run(options: &ExplainOptions) -> Result<bool, Box<dyn Error>> {
    if let Some(path) = &options.live {
        return live::run(path, options.stack.as_deref(), options.json);
    }
    let integrity = options.transport.has_integrity();
    let stack = options.stack.as_deref().unwrap_or(DEFAULT_STACK);
    let explanation = explain(&Registry::standard(), stack, usize::from(options.members), integrity)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&object(&explanation))?);
    } else {
        print!("{explanation}");
    }
    Ok(true)
}

fn object(explanation: &Explanation) -> Value {
    let names = |properties: Properties| properties.iter().map(|one| one.to_string()).collect::<Vec<_>>();
    let layers = explanation.layers.iter().map(|layer| {
        json!({
            "name": layer.name,
            "about": layer.about,
            "requires": names(layer.requires),
            "provides": names(layer.provides),
            "above": names(layer.above),
        })
    });
    let fields = explanation.fields.iter().map(|field| {
        let place = match field.place {
            Place::Word { word, shift } => json!({ "word": word, "shift": shift }),
            Place::Elided => Value::Null,
        };
        json!({
            "traffic": field.traffic.name(),
            "name": field.name,
            "class": format!("{:?}", field.class),
            "bits": field.bits,
            "bound": field.bound,
            "place": place,
        })
    });
    let headers = explanation.headers.iter().map(|header| {
        json!({
            "traffic": header.traffic.name(),
            "full_bytes": header.full_bytes,
            "compressed_bytes": header.compressed_bytes,
        })
    });
    let plans = explanation.plans.iter().map(|plan| {
        let (listing, reason) = match &plan.listing {
            Ok(lines) => (json!(lines), Value::Null),
            Err(reason) => (Value::Null, json!(reason)),
        };
        json!({ "kind": plan.kind.name(), "steps": plan.steps, "listing": listing, "no_plan_because": reason })
    });
    json!({
        "stack": explanation.spec,
        "layers": layers.collect::<Vec<_>>(),
        "fields": fields.collect::<Vec<_>>(),
        "headers": headers.collect::<Vec<_>>(),
        "plans": plans.collect::<Vec<_>>(),
    })
}

//! `vessel sample`.

use api::latest::{ApiError, ErrorCode, Sample};

use super::labels;
use crate::Context;
use crate::arguments::SampleVerb;
use crate::output::Outcome;
use crate::table::{Align, Table, pairs};

pub(crate) async fn run(context: &Context, verb: SampleVerb) -> Outcome {
    match verb {
        SampleVerb::Create(arguments) => {
            let sample = Sample {
                name: arguments.name,
                description: arguments.description.unwrap_or_default(),
                template: arguments.template,
                applications: arguments.application,
                options: arguments.option,
                settings: arguments.set,
                labels: labels(&arguments.label)?,
            };
            let made = context.client.create_sample(&sample).await?;
            match (context.out.json, context.out.quiet) {
                (true, _) => context.out.json(&made),
                (_, true) => Ok(()),
                _ => context.out.line(&made.name),
            }
        }
        SampleVerb::List => list(context).await,
        SampleVerb::Show { name } => {
            let samples = context.client.samples().await?;
            let found = samples.into_iter().find(|sample| sample.name == name);
            let sample = found.ok_or_else(|| {
                ApiError::new(ErrorCode::NotFound, format!("there is no sample `{name}`"))
                    .with_hint("`vessel sample list` shows those of this node")
            })?;
            if context.out.json {
                return context.out.json(&sample);
            }
            pairs(&lines(&sample))
                .iter()
                .try_for_each(|line| context.out.line(line))
        }
        SampleVerb::Delete { names } => {
            for name in names {
                context.client.delete_sample(&name).await?;
                if !context.out.quiet {
                    context.out.line(&format!("{name} deleted"))?;
                }
            }
            Ok(())
        }
    }
}

async fn list(context: &Context) -> Outcome {
    let samples = context.client.samples().await?;
    if context.out.json {
        return context.out.json(&samples);
    }
    let mut table = Table::new([
        ("NAME", Align::Left),
        ("TEMPLATE", Align::Left),
        ("SETTINGS", Align::Left),
        ("MEANING", Align::Left),
    ]);
    for sample in samples {
        let template = sample.template.into_iter().chain(sample.applications);
        table.row([
            sample.name,
            template.collect::<Vec<_>>().join("+"),
            sample.settings.join(" "),
            sample.description,
        ]);
    }
    table
        .lines(true)
        .iter()
        .try_for_each(|line| context.out.line(line))
}

fn lines(sample: &Sample) -> Vec<(&'static str, String)> {
    let own = sample.labels.iter();
    let own = own.map(|(key, value)| format!("{key}={value}"));
    vec![
        ("name", sample.name.clone()),
        ("description", sample.description.clone()),
        ("template", sample.template.clone().unwrap_or_default()),
        ("applications", sample.applications.join(", ")),
        ("options", sample.options.join(", ")),
        ("settings", sample.settings.join(", ")),
        ("labels", own.collect::<Vec<_>>().join(", ")),
    ]
}

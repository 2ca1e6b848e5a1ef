//! Samples of the fake node: one, for ever.

use api::latest::Sample;
use server::Samples;
use server::node::Reply;

use super::Fake;

impl Samples for Fake {
    fn samples(&self) -> Reply<'_, Vec<Sample>> {
        let small = Sample {
            name: "small".to_owned(),
            settings: vec!["memory.limit=512M".to_owned()],
            ..Sample::default()
        };
        Box::pin(async move { Ok(vec![small]) })
    }

    fn create_sample(&self, sample: Sample) -> Reply<'_, Sample> {
        Box::pin(async move { Ok(sample) })
    }

    fn delete_sample(&self, _: String) -> Reply<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

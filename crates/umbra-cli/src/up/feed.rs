//! Files to the controller's inputs, in place of watches.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use umbra_api::Meta;
use umbra_compile::ObjectRef;
use umbra_controller::publish::{Input, Undecodable};
use umbra_index::Kind;

use super::UpError;
use super::screen::Screen;
use super::task::Task;
use crate::files::{self, Changes, ObjectId, ObjectKind, Texts, World};

/// Between two looks. Reading a folder of manifests takes well under a millisecond, and a person does not notice.
const LOOK: Duration = Duration::from_millis(200);

/// The task that looks at the files.
pub(super) fn start(paths: Vec<PathBuf>, inputs: mpsc::Sender<Input>, screen: Screen) -> Task {
    Task::start(run(paths, inputs, screen))
}

/// Ends when nobody takes the inputs.
async fn run(paths: Vec<PathBuf>, inputs: mpsc::Sender<Input>, screen: Screen) -> Result<(), UpError> {
    let (mut world, mut acted_on, mut last) = (World::default(), None, None);
    let mut said = Vec::new();
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let texts = read(&paths).await?;
        // A file that is being written is read again until two looks agree; else half of it might count.
        let settled = acted_on.is_none() || last.as_ref() == Some(&texts);
        if settled && acted_on.as_ref() != Some(&texts) {
            let changes = world.look(&texts);
            if changes.problems != said {
                screen.problems(&changes.problems)?;
                said.clone_from(&changes.problems);
            }
            if acted_on.is_none() {
                screen.passed_over(&changes.passed_over)?;
            }
            for input in to_inputs(changes, acted_on.is_none()) {
                if inputs.send(input).await.is_err() {
                    return Ok(());
                }
            }
            acted_on = Some(texts.clone());
        }
        last = Some(texts);
    }
}

async fn read(paths: &[PathBuf]) -> Result<Texts, UpError> {
    let paths = paths.to_vec();
    Ok(tokio::task::spawn_blocking(move || files::read(&paths)).await?)
}

/// What cannot be read goes first: a relist would else count it as gone.
fn to_inputs(changes: Changes, first: bool) -> Vec<Input> {
    let undecodable: Vec<_> = changes.undecodable.into_iter().filter_map(undecodable).collect();
    let mut inputs: Vec<_> = if first {
        let of = |kind| undecodable.iter().filter(move |object| object.object.kind == kind).cloned();
        let kinds = [Kind::DestinationRule, Kind::VirtualService];
        kinds.into_iter().map(|kind| Input::Undecodables(kind, of(kind).collect())).collect()
    } else {
        undecodable.into_iter().map(Input::Undecodable).collect()
    };
    inputs.extend(changes.events.into_iter().map(Input::Event));
    inputs
}

/// Objects of other kinds have no conditions; the screen has named them.
fn undecodable((id, error): (ObjectId, String)) -> Option<Undecodable> {
    let kind = match id.kind {
        ObjectKind::VirtualService => Kind::VirtualService,
        ObjectKind::DestinationRule => Kind::DestinationRule,
        ObjectKind::Node
        | ObjectKind::Pod
        | ObjectKind::Service
        | ObjectKind::EndpointSlice
        | ObjectKind::NetworkPolicy => return None,
    };
    let meta = Meta { namespace: id.key.namespace, name: id.key.name, ..Meta::default() };
    Some(Undecodable { object: ObjectRef::new(kind, &meta), error })
}

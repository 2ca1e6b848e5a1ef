//! What all clones of an engine share: lanes, tickets of operations under way, and what VEs are
//! doing. The records are in the registry.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use registry::{CreateConflict, Event, OperationId, OperationState, Outcome, Registry, VeRecord};
use ve::{Stack, State, VeId};

use crate::error::{Failure, FailureKind};
use crate::lanes::{EngineParts, Job, LaneKey, Notice};
use crate::ledger::Ledger;
use crate::mechanisms::{Progress, ProgressSink};
use crate::update::Reports;

/// An operation that has not ended, in memory.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Whether its steps are being carried out.
    pub running: bool,
    /// How far it is.
    pub progress: Option<Progress>,
    pub(crate) cancelled: Arc<AtomicBool>,
}

/// How the end of an operation is written down.
type End = fn(
    &Registry,
    OperationId,
    OperationState,
    Option<(&str, &str)>,
    Outcome<'_>,
    &Event,
) -> Result<i64, CreateConflict>;

pub(crate) struct Inner {
    pub(crate) parts: EngineParts,
    lanes: Mutex<Lanes>,
    tickets: Mutex<BTreeMap<OperationId, Ticket>>,
    /// What VEs are doing while an operation is at work on them; the record says what they did.
    activities: Mutex<HashMap<VeId, State>>,
    /// When VEs restarted themselves, of late.
    restarts: Mutex<BTreeMap<VeId, Vec<u64>>>,
    /// Numbers that no new VE may have: files lie there of a VE that the registry does not know.
    strangers: Mutex<BTreeSet<VeId>>,
    /// VEs whose record may not tell the truth: the end of an operation could not be written.
    doubted: Mutex<BTreeSet<VeId>>,
    /// What VEs hold of the node.
    ledger: Mutex<Ledger>,
    /// Held while a template is looked up and a VE of it recorded, and while one is removed.
    templates: Mutex<()>,
    /// Numbers of sandboxes in which stacks are built: whoever builds deals with the end of their inits.
    sandboxes: Mutex<BTreeSet<VeId>>,
    /// Stacks that are being made, each by one.
    stacks: Mutex<BTreeSet<Stack>>,
    stack_made: Condvar,
    /// Stacks that VEs are about to have, and that their records do not name yet.
    stacks_held: Mutex<BTreeMap<VeId, Stack>>,
    /// How updates went.
    reports: Mutex<Reports>,
    /// Held while an operation is journalled and put in its lane, so that both have one order.
    submitting: Mutex<()>,
}

/// The work that waits, by lane. A lane is there as long as somebody works on it.
#[derive(Default)]
pub(crate) struct Lanes {
    /// Whether work is carried out already. What comes before the node was set right waits.
    pub(crate) open: bool,
    pub(crate) waiting: HashMap<LaneKey, VecDeque<Job>>,
}

impl Inner {
    pub(crate) fn new(parts: EngineParts) -> Self {
        Self {
            ledger: Mutex::new(Ledger::new(parts.capacity.clone())),
            parts,
            lanes: Mutex::default(),
            tickets: Mutex::default(),
            activities: Mutex::default(),
            restarts: Mutex::default(),
            strangers: Mutex::default(),
            doubted: Mutex::default(),
            templates: Mutex::default(),
            sandboxes: Mutex::default(),
            stacks: Mutex::default(),
            stack_made: Condvar::new(),
            stacks_held: Mutex::default(),
            reports: Mutex::default(),
            submitting: Mutex::default(),
        }
    }

    pub(crate) fn lanes(&self) -> MutexGuard<'_, Lanes> {
        locked(&self.lanes)
    }

    pub(crate) fn tickets(&self) -> MutexGuard<'_, BTreeMap<OperationId, Ticket>> {
        locked(&self.tickets)
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        locked(&self.ledger)
    }

    /// Keeps templates that are looked at from being removed.
    pub(crate) fn template_gate(&self) -> MutexGuard<'_, ()> {
        locked(&self.templates)
    }

    pub(crate) fn sandbox_begins(&self, id: VeId) {
        locked(&self.sandboxes).insert(id);
    }

    pub(crate) fn sandbox_ended(&self, id: VeId) {
        locked(&self.sandboxes).remove(&id);
    }

    pub(crate) fn is_sandbox(&self, id: VeId) -> bool {
        locked(&self.sandboxes).contains(&id)
    }

    /// Keeps a stack for a VE that is about to have it, until another call says otherwise.
    pub(crate) fn stack_hold(&self, id: VeId, stack: Option<Stack>) {
        match stack {
            Some(stack) => locked(&self.stacks_held).insert(id, stack),
            None => locked(&self.stacks_held).remove(&id),
        };
    }

    pub(crate) fn stacks_held(&self) -> Vec<Stack> {
        locked(&self.stacks_held).values().cloned().collect()
    }

    pub(crate) fn reports(&self) -> MutexGuard<'_, Reports> {
        locked(&self.reports)
    }

    /// Waits until nobody else makes this stack, and keeps others from it.
    pub(crate) fn stack_turn<'a>(&'a self, stack: &Stack) -> StackTurn<'a> {
        let mut stacks = locked(&self.stacks);
        while !stacks.insert(stack.clone()) {
            let waited = self.stack_made.wait(stacks);
            stacks = waited.unwrap_or_else(PoisonError::into_inner);
        }
        StackTurn {
            inner: self,
            stack: stack.clone(),
        }
    }

    /// Keeps the order of the journal and of the lanes the same.
    pub(crate) fn submit_gate(&self) -> MutexGuard<'_, ()> {
        locked(&self.submitting)
    }

    /// How much waits in a lane, with what is being done.
    pub(crate) fn lane_length(&self, key: &LaneKey) -> usize {
        let lanes = self.lanes();
        lanes.waiting.get(key).map_or(0, |lane| lane.len() + 1)
    }

    /// Whether any lane has work.
    #[cfg(test)]
    pub(crate) fn is_busy(&self) -> bool {
        !self.lanes().waiting.is_empty()
    }

    /// How often a VE restarted itself within the time that counts.
    pub(crate) fn restarts_before(&self, id: VeId, now: u64) -> usize {
        let mut all = locked(&self.restarts);
        let Some(restarts) = all.get_mut(&id) else {
            return 0;
        };
        // Those that are still to come were noted before somebody set the clock back.
        restarts.retain(|at| *at <= now && now - at < policy::RESTARTS_SECONDS);
        restarts.len()
    }

    pub(crate) fn note_restart(&self, id: VeId, now: u64) {
        locked(&self.restarts).entry(id).or_default().push(now);
    }

    pub(crate) fn forget_restarts(&self, id: VeId) {
        locked(&self.restarts).remove(&id);
    }

    pub(crate) fn keep_strangers(&self, ids: BTreeSet<VeId>) {
        *locked(&self.strangers) = ids;
    }

    pub(crate) fn strangers(&self) -> BTreeSet<VeId> {
        locked(&self.strangers).clone()
    }

    /// Notes that the record of a VE may not tell the truth.
    pub(crate) fn doubt(&self, id: VeId) {
        locked(&self.doubted).insert(id);
    }

    pub(crate) fn doubted(&self, id: VeId) -> bool {
        locked(&self.doubted).contains(&id)
    }

    /// The VEs whose records are in doubt.
    pub(crate) fn doubts(&self) -> Vec<VeId> {
        locked(&self.doubted).iter().copied().collect()
    }

    /// Notes that the record of a VE was held against what is.
    pub(crate) fn trust(&self, id: VeId) {
        locked(&self.doubted).remove(&id);
    }

    pub(crate) fn as_seen(&self, mut record: VeRecord) -> VeRecord {
        if let Some(state) = locked(&self.activities).get(&record.spec.id) {
            record.state = *state;
        }
        record
    }

    /// Shows what an operation is doing to a VE, until it is taken away again.
    pub(crate) fn show_activity(&self, id: VeId, state: Option<State>) {
        let mut activities = locked(&self.activities);
        let shown = match state {
            Some(state) => activities.insert(id, state),
            None => activities.remove(&id),
        };
        drop(activities);
        if shown != state {
            (self.parts.publish)(Notice::Ve(id));
        }
    }

    pub(crate) fn open_ticket(&self, operation: OperationId) {
        let ticket = Ticket {
            running: false,
            progress: None,
            cancelled: Arc::default(),
        };
        self.tickets().insert(operation, ticket);
        (self.parts.publish)(Notice::Operation(operation));
    }

    pub(crate) fn mark_running(&self, operation: OperationId) {
        if let Some(ticket) = self.tickets().get_mut(&operation) {
            ticket.running = true;
        }
        (self.parts.publish)(Notice::Operation(operation));
    }

    /// Forgets the ticket of an operation that nobody works on any more.
    pub(crate) fn close_ticket(&self, operation: OperationId) {
        self.tickets().remove(&operation);
        (self.parts.publish)(Notice::Operation(operation));
    }

    /// Writes down what happened outside of any operation, and tells it.
    pub(crate) fn tell(&self, outcome: Outcome<'_>, mut event: Event) -> Result<(), Failure> {
        self.settle_holding(outcome);
        event.at = (self.parts.clock)();
        event.id = self.parts.registry.record(outcome, &event)?;
        if let Some(id) = event.ve.and_then(|number| VeId::new(number).ok()) {
            (self.parts.publish)(Notice::Ve(id));
        }
        (self.parts.publish)(Notice::Event(event));
        Ok(())
    }

    /// Ends an operation: journal, record and event in one transaction, then whoever waits hears.
    ///
    /// A registry that cannot be written leaves the operation open; the VE is set right before the
    /// next operation on it, or at the next start of the node.
    pub(crate) fn end_operation(
        &self,
        operation: OperationId,
        result: &Result<(), Failure>,
        outcome: Outcome<'_>,
        event: Event,
    ) -> Result<(), Failure> {
        self.end(operation, result, outcome, event, Registry::operation_end)
    }

    /// The same for an operation that nobody asked for and the next of which is urgent: nobody waits for the
    /// disk.
    pub(crate) fn end_unwaited(
        &self,
        operation: OperationId,
        result: &Result<(), Failure>,
        outcome: Outcome<'_>,
        event: Event,
    ) -> Result<(), Failure> {
        let end = Registry::operation_end_unwaited;
        self.end(operation, result, outcome, event, end)
    }

    fn end(
        &self,
        operation: OperationId,
        result: &Result<(), Failure>,
        outcome: Outcome<'_>,
        mut event: Event,
        end: End,
    ) -> Result<(), Failure> {
        self.settle_holding(outcome);
        event.at = (self.parts.clock)();
        let (state, failure) = match result {
            Ok(()) => (OperationState::Done, None),
            Err(failure) if failure.kind == FailureKind::Cancelled => {
                (OperationState::Cancelled, Some(failure))
            }
            Err(failure) => (OperationState::Failed, Some(failure)),
        };
        let text = failure.map(stored_message);
        let words = failure
            .zip(text.as_deref())
            .map(|(f, text)| (f.kind.as_str(), text));
        let ended = end(
            &self.parts.registry,
            operation,
            state,
            words,
            outcome,
            &event,
        );
        let ve = event.ve.and_then(|number| VeId::new(number).ok());
        if let Some(id) = ve {
            // Before anybody hears of the end: who looks then is to see how the VE is, not what was done to it.
            self.show_activity(id, None);
        }
        self.close_ticket(operation);
        event.id = ended?;
        if let Some(id) = ve {
            (self.parts.publish)(Notice::Ve(id));
        }
        (self.parts.publish)(Notice::Event(event));
        Ok(())
    }
}

/// The right to make one stack, until it is dropped.
pub(crate) struct StackTurn<'a> {
    inner: &'a Inner,
    stack: Stack,
}

impl Drop for StackTurn<'_> {
    fn drop(&mut self) {
        locked(&self.inner.stacks).remove(&self.stack);
        self.inner.stack_made.notify_all();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Between a message of several lines and its hint, in the journal. No text of ours holds it.
const HINT_MARK: char = '\u{1f}';

/// A failure as one text for the journal: the hint in a line of its own, or behind a mark.
fn stored_message(failure: &Failure) -> String {
    let message = &failure.message;
    match &failure.hint {
        hint if message.contains('\n') => {
            format!(
                "{message}{HINT_MARK}{}",
                hint.as_deref().unwrap_or_default()
            )
        }
        Some(hint) => format!("{message}\n{hint}"),
        None => message.clone(),
    }
}

impl Failure {
    /// The failure that a journalled operation ended with.
    #[must_use]
    pub fn from_journal(code: &str, text: &str) -> Self {
        let parts = text.split_once(HINT_MARK).or_else(|| text.split_once('\n'));
        let (message, hint) = parts.map_or((text, None), |(m, h)| (m, Some(h)));
        let hint = hint.filter(|hint| !hint.is_empty());
        Self {
            kind: FailureKind::from_word(code),
            message: message.to_owned(),
            hint: hint.map(str::to_owned),
        }
    }
}

/// Progress and cancellation of one operation.
pub(crate) struct TicketSink<'a> {
    pub(crate) inner: &'a Inner,
    pub(crate) operation: OperationId,
}

impl ProgressSink for TicketSink<'_> {
    fn report(&self, progress: Progress) {
        if let Some(ticket) = self.inner.tickets().get_mut(&self.operation) {
            ticket.progress = Some(progress);
        }
        (self.inner.parts.publish)(Notice::Operation(self.operation));
    }

    fn cancelled(&self) -> bool {
        let tickets = self.inner.tickets();
        tickets
            .get(&self.operation)
            .is_some_and(|ticket| ticket.cancelled.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_read_back_as_it_was_written() {
        for message in ["one line", "several\nlines\n  of a log"] {
            for hint in [None, Some("do it")] {
                let failure = Failure {
                    hint: hint.map(str::to_owned),
                    ..Failure::new(FailureKind::Conflict, message)
                };
                let text = stored_message(&failure);
                assert_eq!(Failure::from_journal("conflict", &text), failure);
            }
        }
    }
}

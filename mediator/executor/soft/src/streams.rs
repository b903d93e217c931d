//! Streams as queues of operations, and which operation may begin when. No threads here: [`crate::device`] runs what
//! becomes ready.
//!
//! Every operation of a stream begins after the one before it, and after the [`Point`]s that it waits for: recorded
//! events, and what the legacy default stream and the blocking streams of its context owe each other. An operation that
//! is not ready occupies no thread.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::gate::{Gate, Mark};
use crate::work::{HostCall, Work};

/// Operations that wait in a stream; whoever adds one more waits for room, as with the real driver.
pub(crate) const OUTSTANDING_MAX: usize = 1024;

/// A stream of this device, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StreamId(u64);

/// A place in a stream: reached once so many of its operations are complete. A stream that is gone has reached all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) stream: StreamId,
    pub(crate) count: u64,
}

/// How a stream stands to the legacy default stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// It is the legacy default stream of its context.
    Legacy,
    /// Ordered with it.
    Blocking,
    /// Made with CU_STREAM_NON_BLOCKING.
    NonBlocking,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// Nothing is known to stand in its way: [`Streams::settle`] has to look.
    Unseen,
    /// Listed as ready.
    Ready,
    /// Being carried out.
    Running,
    /// Waits for another stream, which lists this one.
    Behind,
    /// Waits for a word.
    Polled,
    /// In the guest's hands.
    Held,
}

struct Operation {
    work: Work,
    after: Vec<Point>,
}

struct Queue {
    context: u32,
    order: Order,
    waiting: VecDeque<Operation>,
    submitted: u64,
    completed: u64,
    head: Head,
    /// Goes once its work is done.
    detached: bool,
    /// Streams whose head waits for this one.
    dependents: Vec<StreamId>,
    /// Host threads that wait for a count.
    watchers: Vec<(u64, Arc<Gate>)>,
    /// Host threads that wait for room.
    crowd: Vec<Arc<Gate>>,
}

struct ContextStreams {
    legacy: StreamId,
    all: BTreeSet<StreamId>,
    /// The blocking ones that have work.
    busy: BTreeSet<StreamId>,
}

/// All streams of a session.
#[derive(Default)]
pub(crate) struct Streams {
    next: u64,
    queues: HashMap<StreamId, Queue>,
    contexts: HashMap<u32, ContextStreams>,
    ready: VecDeque<StreamId>,
    polled: Vec<StreamId>,
    poisoned: bool,
}

/// What became of an operation that was offered.
pub(crate) enum Added {
    /// It is in the stream.
    Queued(Point),
    /// The stream is full: try again when the gate opens.
    Full(Work, Arc<Gate>),
    /// There is no such stream, or no stream works any more.
    Refused,
}

impl Queue {
    fn idle(&self) -> bool {
        self.completed >= self.submitted
    }
}

impl Streams {
    fn add(&mut self, context: u32, order: Order) -> StreamId {
        let id = StreamId(self.next);
        self.next = self.next.wrapping_add(1);
        let queue = Queue {
            context,
            order,
            waiting: VecDeque::new(),
            submitted: 0,
            completed: 0,
            head: Head::Unseen,
            detached: false,
            dependents: Vec::new(),
            watchers: Vec::new(),
            crowd: Vec::new(),
        };
        self.queues.insert(id, queue);
        id
    }

    /// A new context and its legacy default stream.
    pub(crate) fn add_context(&mut self, context: u32) -> StreamId {
        let legacy = self.add(context, Order::Legacy);
        let streams = ContextStreams { legacy, all: BTreeSet::from([legacy]), busy: BTreeSet::new() };
        self.contexts.insert(context, streams);
        legacy
    }

    /// A new stream; `None`: there is no such context.
    pub(crate) fn add_stream(&mut self, context: u32, order: Order) -> Option<StreamId> {
        if !self.contexts.contains_key(&context) {
            return None;
        }
        let id = self.add(context, order);
        if let Some(c) = self.contexts.get_mut(&context) {
            c.all.insert(id);
        }
        Some(id)
    }

    /// The stream goes once its work is done.
    pub(crate) fn detach(&mut self, id: StreamId) {
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.detached = true;
            if queue.idle() {
                self.remove(id);
            }
        }
    }

    /// All streams of a context go once their work is done.
    pub(crate) fn remove_context(&mut self, context: u32) {
        if let Some(streams) = self.contexts.remove(&context) {
            for id in streams.all {
                self.detach(id);
            }
        }
    }

    fn remove(&mut self, id: StreamId) {
        let Some(queue) = self.queues.remove(&id) else { return };
        if let Some(c) = self.contexts.get_mut(&queue.context) {
            c.all.remove(&id);
            c.busy.remove(&id);
        }
        for gate in queue.crowd {
            gate.drop_it();
        }
    }

    fn reached(&self, point: &Point) -> bool {
        self.queues.get(&point.stream).is_none_or(|q| q.completed >= point.count)
    }

    /// What a new operation of a stream has to wait for because of the legacy default stream.
    fn legacy_order(&self, queue: &Queue, after: &mut Vec<Point>) {
        let Some(context) = self.contexts.get(&queue.context) else { return };
        let end = |id: &StreamId| {
            self.queues.get(id).filter(|q| !q.idle()).map(|q| Point { stream: *id, count: q.submitted })
        };
        match queue.order {
            Order::Legacy => after.extend(context.busy.iter().filter_map(end)),
            Order::Blocking => after.extend(end(&context.legacy)),
            Order::NonBlocking => {}
        }
    }

    /// Puts an operation into a stream and starts what can start.
    pub(crate) fn submit(&mut self, id: StreamId, work: Work, mut after: Vec<Point>) -> Added {
        if self.poisoned {
            return Added::Refused;
        }
        let Some(queue) = self.queues.get(&id) else { return Added::Refused };
        self.legacy_order(queue, &mut after);
        let Some(queue) = self.queues.get_mut(&id) else { return Added::Refused };
        if queue.waiting.len() >= OUTSTANDING_MAX {
            let gate = Arc::new(Gate::default());
            queue.crowd.push(gate.clone());
            return Added::Full(work, gate);
        }
        queue.waiting.push_back(Operation { work, after });
        queue.submitted = queue.submitted.saturating_add(1);
        let point = Point { stream: id, count: queue.submitted };
        self.note_busy(id);
        self.settle(id);
        Added::Queued(point)
    }

    /// Where nothing stands in the way, an operation begins at once, carried out by the caller, who then calls
    /// [`Streams::complete`]. `None`: it has to wait its turn.
    pub(crate) fn begin(&mut self, id: StreamId) -> Option<Point> {
        let queue = self.queues.get(&id)?;
        if self.poisoned || !queue.idle() {
            return None;
        }
        let mut after = Vec::new();
        self.legacy_order(queue, &mut after);
        if !after.is_empty() {
            return None;
        }
        let queue = self.queues.get_mut(&id)?;
        queue.submitted = queue.submitted.saturating_add(1);
        queue.head = Head::Running;
        let point = Point { stream: id, count: queue.submitted };
        self.note_busy(id);
        Some(point)
    }

    fn note_busy(&mut self, id: StreamId) {
        if let Some(queue) = self.queues.get(&id)
            && queue.order == Order::Blocking
            && let Some(context) = self.contexts.get_mut(&queue.context)
        {
            context.busy.insert(id);
        }
    }

    /// The running operation of a stream is done.
    pub(crate) fn complete(&mut self, id: StreamId) {
        let mut look = Vec::new();
        self.count(id, &mut look);
        look.push(id);
        self.settle_all(look);
    }

    /// One more operation is complete; who waited for the stream is to be looked at.
    fn count(&mut self, id: StreamId, look: &mut Vec<StreamId>) {
        let Some(queue) = self.queues.get_mut(&id) else { return };
        queue.completed = queue.completed.saturating_add(1);
        queue.head = Head::Unseen;
        for dependent in queue.dependents.drain(..) {
            look.push(dependent);
        }
        let completed = queue.completed;
        for (_, gate) in queue.watchers.extract_if(.., |(count, _)| *count <= completed) {
            gate.open();
        }
        if queue.waiting.len() < OUTSTANDING_MAX {
            queue.crowd.drain(..).for_each(|gate| gate.open());
        }
        let (idle, detached) = (queue.idle(), queue.detached);
        if idle {
            let context = queue.context;
            if let Some(c) = self.contexts.get_mut(&context) {
                c.busy.remove(&id);
            }
            if detached {
                self.remove(id);
            }
        }
        for dependent in look.iter() {
            if let Some(q) = self.queues.get_mut(dependent)
                && q.head == Head::Behind
            {
                q.head = Head::Unseen;
            }
        }
    }

    fn settle(&mut self, id: StreamId) {
        self.settle_all(vec![id]);
    }

    /// Looks at the heads of these streams, and of those that wait for what completes on the way.
    fn settle_all(&mut self, mut look: Vec<StreamId>) {
        while let Some(id) = look.pop() {
            while self.step(id, &mut look) {}
        }
    }

    /// Looks at a stream's head once. `true`: it completed on the spot, look again.
    fn step(&mut self, id: StreamId, look: &mut Vec<StreamId>) -> bool {
        let Some(queue) = self.queues.get_mut(&id) else { return false };
        if queue.head != Head::Unseen {
            return false;
        }
        let Some(operation) = queue.waiting.front_mut() else { return false };
        let mut after = std::mem::take(&mut operation.after);
        while let Some(point) = after.last() {
            if self.reached(point) {
                after.pop();
                continue;
            }
            let ahead = point.stream;
            if let Some(other) = self.queues.get_mut(&ahead) {
                other.dependents.push(id);
            }
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.head = Head::Behind;
                if let Some(operation) = queue.waiting.front_mut() {
                    operation.after = after;
                }
            }
            return false;
        }
        let Some(queue) = self.queues.get_mut(&id) else { return false };
        match queue.waiting.front().map(|o| &o.work) {
            Some(Work::Nothing) => {}
            Some(Work::Mark(mark)) => mark.reach(Instant::now()),
            Some(Work::Turn(gate)) => {
                gate.open();
                queue.waiting.pop_front();
                queue.head = Head::Running;
                return false;
            }
            Some(_) => {
                queue.head = Head::Ready;
                self.ready.push_back(id);
                return false;
            }
            None => return false,
        }
        queue.waiting.pop_front();
        self.count(id, look);
        true
    }

    /// How many operations wait for a thread.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// The next operation for a thread; [`Streams::complete`] or [`Streams::poll_later`] follow.
    pub(crate) fn take(&mut self) -> Option<(StreamId, Work)> {
        while let Some(id) = self.ready.pop_front() {
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            if queue.head != Head::Ready {
                continue;
            }
            let Some(operation) = queue.waiting.pop_front() else { continue };
            let in_guest = matches!(operation.work, Work::Host(_));
            queue.head = if in_guest { Head::Held } else { Head::Running };
            if queue.waiting.len() < OUTSTANDING_MAX {
                queue.crowd.drain(..).for_each(|gate| gate.open());
            }
            return Some((id, operation.work));
        }
        None
    }

    /// The running operation waits for a word that is not there yet.
    pub(crate) fn poll_later(&mut self, id: StreamId, work: Work) {
        if self.poisoned {
            return self.complete(id);
        }
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.waiting.push_front(Operation { work, after: Vec::new() });
            queue.head = Head::Polled;
            self.polled.push(id);
        }
    }

    /// The streams that wait for words, with what they wait for.
    pub(crate) fn polled(&self) -> Vec<(StreamId, Work)> {
        let work = |id: &StreamId| match self.queues.get(id)?.waiting.front()?.work {
            Work::WaitValue(wait) => Some((*id, Work::WaitValue(wait))),
            _ => None,
        };
        self.polled.iter().filter_map(work).collect()
    }

    /// The word that a stream waited for is there.
    pub(crate) fn polled_done(&mut self, id: StreamId) {
        self.polled.retain(|other| *other != id);
        if let Some(queue) = self.queues.get_mut(&id)
            && queue.head == Head::Polled
        {
            queue.waiting.pop_front();
            self.complete(id);
        }
    }

    /// How far a stream's work goes; for the legacy default stream also that of the streams it waits for.
    pub(crate) fn ends(&self, id: StreamId) -> Vec<Point> {
        let Some(queue) = self.queues.get(&id) else { return Vec::new() };
        let mut points = Vec::new();
        if queue.order == Order::Legacy {
            self.legacy_order(queue, &mut points);
        }
        if !queue.idle() {
            points.push(Point { stream: id, count: queue.submitted });
        }
        points
    }

    /// How far all work goes: of a context, or of all.
    pub(crate) fn all_ends(&self, context: Option<u32>) -> Vec<Point> {
        let of = |(id, q): (&StreamId, &Queue)| {
            (!q.idle() && context.is_none_or(|c| c == q.context))
                .then_some(Point { stream: *id, count: q.submitted })
        };
        self.queues.iter().filter_map(of).collect()
    }

    /// The end of a stream's work now, for an event.
    pub(crate) fn is_reached(&self, point: &Point) -> bool {
        self.poisoned || self.reached(point)
    }

    /// A gate that opens when the point is reached; `None`: it is.
    pub(crate) fn watch(&mut self, point: &Point) -> Option<Arc<Gate>> {
        if self.is_reached(point) {
            return None;
        }
        let queue = self.queues.get_mut(&point.stream)?;
        let gate = Arc::new(Gate::default());
        queue.watchers.push((point.count, gate.clone()));
        Some(gate)
    }

    /// Whoever watched has given up.
    pub(crate) fn unwatch(&mut self, point: &Point, gate: &Arc<Gate>) {
        if let Some(queue) = self.queues.get_mut(&point.stream) {
            queue.watchers.retain(|(_, other)| !Arc::ptr_eq(other, gate));
        }
    }

    /// Nothing runs here, and nothing will before the guest has answered: all that is left stands behind its functions.
    pub(crate) fn rests(&self) -> bool {
        let rests = |q: &Queue| q.idle() || matches!(q.head, Head::Held | Head::Behind);
        self.queues.values().any(|q| q.head == Head::Held) && self.queues.values().all(rests)
    }

    /// Nothing works any more: waiting operations are dropped, whoever waits is told. Running ones still complete. The
    /// functions of the guest's that are to be told, too, come back.
    pub(crate) fn poison(&mut self) -> Vec<u64> {
        let mut callbacks = Vec::new();
        self.poisoned = true;
        self.ready.clear();
        self.polled.clear();
        for queue in self.queues.values_mut() {
            for operation in queue.waiting.drain(..) {
                match operation.work {
                    Work::Turn(gate) => gate.drop_it(),
                    Work::Host(HostCall { token, is_callback: true }) => callbacks.push(token),
                    _ => {}
                }
            }
            let running = u64::from(matches!(queue.head, Head::Running | Head::Held));
            queue.completed = queue.submitted.saturating_sub(running);
            if running == 0 {
                queue.head = Head::Unseen;
            }
            queue.dependents.clear();
            queue.watchers.drain(..).for_each(|(_, gate)| gate.drop_it());
            queue.crowd.drain(..).for_each(|gate| gate.drop_it());
        }
        callbacks
    }

    /// A mark that a stream reaches after all it has been given so far, where that is now.
    pub(crate) fn mark_now(&self, id: StreamId, mark: &Mark) -> Option<Point> {
        let queue = self.queues.get(&id).filter(|q| q.idle() && !self.poisoned)?;
        let mut after = Vec::new();
        self.legacy_order(queue, &mut after);
        if !after.is_empty() {
            return None;
        }
        mark.reach(Instant::now());
        Some(Point { stream: id, count: queue.submitted })
    }
}

#[cfg(test)]
mod tests;

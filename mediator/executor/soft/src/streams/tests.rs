use super::*;
use crate::transfer::Word;

fn write() -> Work {
    Work::WriteValue { address: 0, word: Word::Narrow(0) }
}

fn queued(added: Added) -> Point {
    match added {
        Added::Queued(point) => point,
        _ => panic!("not queued"),
    }
}

/// Takes everything that is ready, in the order in which it became so.
fn ready(streams: &mut Streams) -> Vec<StreamId> {
    std::iter::from_fn(|| streams.take().map(|(id, _)| id)).collect()
}

fn two() -> (Streams, StreamId, StreamId, StreamId) {
    let mut streams = Streams::default();
    let legacy = streams.add_context(1);
    let blocking = streams.add_stream(1, Order::Blocking).unwrap();
    let free = streams.add_stream(1, Order::NonBlocking).unwrap();
    (streams, legacy, blocking, free)
}

#[test]
fn one_operation_of_a_stream_runs_at_a_time() {
    let (mut s, _, a, b) = two();
    for _ in 0..3 {
        queued(s.submit(a, write(), Vec::new()));
    }
    queued(s.submit(b, write(), Vec::new()));
    assert_eq!(ready(&mut s), [a, b]);
    s.complete(a);
    assert_eq!(ready(&mut s), [a]);
    assert!(s.begin(b).is_none(), "it runs something");
    s.complete(b);
    assert!(s.begin(b).is_some());
}

#[test]
fn marks_and_waits_complete_by_themselves_in_a_chain() {
    let (mut s, _, a, b) = two();
    let mark = Arc::new(Mark::default());
    let first = queued(s.submit(a, write(), Vec::new()));
    let recorded = queued(s.submit(a, Work::Mark(mark.clone()), Vec::new()));
    let waited = queued(s.submit(b, Work::Nothing, vec![recorded]));
    queued(s.submit(b, write(), Vec::new()));
    assert_eq!(ready(&mut s), [a]);
    let gate = s.watch(&waited).unwrap();
    assert!(mark.reached().is_none() && !s.is_reached(&first));
    s.complete(a);
    assert!(mark.reached().is_some() && s.is_reached(&waited));
    assert_eq!(gate.pass(None), crate::gate::Passed::Open);
    assert_eq!(ready(&mut s), [b]);
}

#[test]
fn the_legacy_stream_stands_between_blocking_streams() {
    let (mut s, legacy, a, free) = two();
    let b = s.add_stream(1, Order::Blocking).unwrap();
    queued(s.submit(a, write(), Vec::new()));
    queued(s.submit(legacy, write(), Vec::new()));
    queued(s.submit(b, write(), Vec::new()));
    queued(s.submit(free, write(), Vec::new()));
    assert_eq!(ready(&mut s), [a, free]);
    assert!(s.ends(legacy).len() == 3 && s.begin(legacy).is_none());
    s.complete(a);
    assert_eq!(ready(&mut s), [legacy]);
    s.complete(legacy);
    assert_eq!(ready(&mut s), [b]);
    s.complete(b);
    assert!(s.begin(legacy).is_some());
    // Another context has a legacy stream of its own.
    let other = s.add_context(2);
    queued(s.submit(other, write(), Vec::new()));
    assert_eq!(ready(&mut s), [other]);
}

#[test]
fn a_full_stream_opens_when_there_is_room() {
    let (mut s, _, a, _) = two();
    queued(s.submit(a, write(), Vec::new()));
    assert_eq!(ready(&mut s), [a]);
    for _ in 0..OUTSTANDING_MAX {
        queued(s.submit(a, write(), Vec::new()));
    }
    let Added::Full(_, gate) = s.submit(a, write(), Vec::new()) else { panic!("there was room") };
    assert_eq!(gate.pass(Some(Instant::now())), crate::gate::Passed::Late);
    s.complete(a);
    assert_eq!(ready(&mut s), [a]);
    assert_eq!(gate.pass(None), crate::gate::Passed::Open);
    queued(s.submit(a, write(), Vec::new()));
}

#[test]
fn a_detached_stream_goes_when_it_is_done_and_counts_as_reached() {
    let (mut s, _, a, b) = two();
    let point = queued(s.submit(a, write(), Vec::new()));
    queued(s.submit(b, write(), vec![point]));
    assert_eq!(ready(&mut s), [a]);
    s.detach(a);
    assert!(!s.is_reached(&point));
    s.complete(a);
    assert!(s.is_reached(&point) && !s.queues.contains_key(&a));
    assert_eq!(ready(&mut s), [b]);
    assert!(matches!(s.submit(a, write(), Vec::new()), Added::Refused));
}

#[test]
fn poison_drops_what_waits_and_tells_everybody() {
    let (mut s, _, a, b) = two();
    queued(s.submit(a, write(), Vec::new()));
    assert_eq!(ready(&mut s), [a]);
    let last = queued(s.submit(a, write(), Vec::new()));
    let turn = Arc::new(Gate::default());
    queued(s.submit(b, Work::Turn(turn.clone()), vec![last]));
    let watched = s.watch(&last).unwrap();
    s.poison();
    for gate in [turn, watched] {
        assert_eq!(gate.pass(None), crate::gate::Passed::Dropped);
    }
    assert!(s.is_reached(&last) && matches!(s.submit(b, write(), Vec::new()), Added::Refused));
    assert_eq!(s.all_ends(None).len(), 1, "one still runs");
    s.complete(a);
    assert!(s.all_ends(None).is_empty());
}

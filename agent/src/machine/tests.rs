#![allow(clippy::unwrap_used)]
//! Random event sequences against a model of the world around the machine.

use proptest::prelude::*;

use super::*;

/// What a correct runner would know: whether a container (or a task that makes or ends one) exists, and how many
/// requests wait.
#[derive(Default)]
struct World {
    alive: bool,
    held: usize,
    answered: usize,
    refused: usize,
}

impl World {
    fn apply(&mut self, event: Event, step: &Step, after: State) {
        match event {
            Event::Ended | Event::StartFailed | Event::NotBegun
                if step.verdict != Verdict::Stale =>
            {
                self.alive = false
            }
            _ => {}
        }
        if step.verdict == Verdict::Hold {
            self.held += 1;
        }
        for action in &step.actions {
            match action {
                Action::Launch => {
                    assert!(!self.alive, "a second container");
                    self.alive = true;
                }
                Action::AnswerHeld => self.answered += std::mem::take(&mut self.held),
                Action::RefuseHeld(_) => self.refused += std::mem::take(&mut self.held),
                Action::AbortStart
                | Action::Terminate
                | Action::CleanUp
                | Action::Freeze
                | Action::Thaw
                | Action::Reclaim => {
                    assert!(self.alive, "{action:?} without a container");
                }
            }
        }
        let expects_container = !matches!(
            after,
            State::Stopped | State::Down | State::Failed { .. } | State::Gone
        );
        assert_eq!(self.alive, expects_container, "{event:?} led to {after:?}");
        if !matches!(after, State::Starting | State::Stopping(_)) {
            assert_eq!(self.held, 0, "requests forgotten in {after:?}");
        }
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    proptest::sample::select(ALL_EVENTS.to_vec())
}

/// Reports come only from tasks that run: a report that no runner could make now is not thrown in, except that
/// the machine must call it stale.
fn possible(state: State, event: Event) -> bool {
    match event {
        Event::Ready => state == State::Starting,
        Event::StartFailed | Event::NotBegun => {
            matches!(
                state,
                State::Starting | State::Stopping(_) | State::Stuck(_)
            )
        }
        Event::Exited => state.rung().is_some(),
        Event::Ended => matches!(state, State::Stopping(_) | State::Stuck(_)),
        Event::Unkillable => matches!(
            state,
            State::Starting | State::Stopping(_) | State::Stuck(_)
        ),
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_sequence_breaks_an_invariant(events in proptest::collection::vec((any_event(), 0u64..40_000), 0..200)) {
        let mut machine = Machine::new(false);
        let mut world = World::default();
        let mut now = Duration::ZERO;
        let mut requests = 0;
        for (event, gap) in events {
            now += Duration::from_millis(gap);
            let before = machine.state();
            if !possible(before, event) {
                let step = machine.clone().step(event, now);
                let expected = if before == State::Gone { Verdict::Refuse(Refusal::Unknown) } else { Verdict::Stale };
                prop_assert_eq!(step.verdict, expected);
                prop_assert!(step.actions.is_empty());
                continue;
            }
            let step = machine.step(event, now);
            if event == Event::Request {
                requests += 1;
                match step.verdict {
                    Verdict::Go => world.answered += 1,
                    Verdict::Refuse(_) => world.refused += 1,
                    Verdict::Hold => {}
                    Verdict::Stale => prop_assert!(false, "a request is never stale"),
                }
            }
            if matches!(step.verdict, Verdict::Refuse(_) | Verdict::Stale) {
                prop_assert_eq!(machine.state(), before, "refused, yet changed");
                prop_assert!(step.actions.is_empty());
            }
            if before == State::Down && machine.state() != State::Down {
                prop_assert!(matches!(event, Event::Start | Event::Up | Event::Withdraw));
            }
            prop_assert!(before != State::Gone || machine.state() == State::Gone);
            world.apply(event, &step, machine.state());
            prop_assert_eq!(world.held > 0, machine.held);
            prop_assert_eq!(requests, world.answered + world.refused + world.held);
        }
    }
}

#[test]
fn every_pair_has_a_result() {
    let states = [
        State::Stopped,
        State::Starting,
        State::Running,
        State::Frozen,
        State::Reclaimed,
        State::Down,
        State::Failed {
            until: Duration::from_secs(5),
        },
        State::Gone,
    ];
    let afters = [
        After::Sleep,
        After::Down,
        After::Start,
        After::Crashed,
        After::Gone,
    ];
    let stopping = afters
        .iter()
        .flat_map(|a| [State::Stopping(*a), State::Stuck(*a)]);
    for state in states.into_iter().chain(stopping) {
        for event in ALL_EVENTS {
            let mut machine = Machine::with(state);
            machine.step(event, Duration::from_secs(1));
        }
    }
}

#[test]
fn a_failing_start_backs_off_and_tells_each_waiting_request() {
    let mut machine = Machine::new(false);
    assert_eq!(
        machine.step(Event::Request, Duration::ZERO).verdict,
        Verdict::Hold
    );
    assert_eq!(
        machine.step(Event::Request, Duration::ZERO).verdict,
        Verdict::Hold
    );
    let failed = machine.step(Event::StartFailed, Duration::from_millis(10));
    assert_eq!(
        failed.actions,
        [Action::RefuseHeld(Refusal::StartFailed(
            Duration::from_secs(1)
        ))]
    );
    let refused = machine
        .step(Event::Request, Duration::from_millis(510))
        .verdict;
    assert_eq!(
        refused,
        Verdict::Refuse(Refusal::BackingOff(Duration::from_millis(500)))
    );
    assert_eq!(
        machine
            .step(Event::Request, Duration::from_millis(1010))
            .verdict,
        Verdict::Hold
    );
}

#[test]
fn a_request_during_an_idle_stop_starts_the_next_life() {
    let mut machine = Machine::adopted(Rung::Running, Duration::ZERO);
    machine.step(Event::IdleStop, Duration::from_secs(60));
    assert_eq!(
        machine
            .step(Event::Request, Duration::from_secs(60))
            .verdict,
        Verdict::Hold
    );
    let ended = machine.step(Event::Ended, Duration::from_secs(60));
    assert_eq!(
        (machine.state(), ended.actions),
        (State::Starting, vec![Action::Launch])
    );
}

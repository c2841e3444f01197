//! The idle ladder: what happens in every state of it, whatever order it comes in, also over the death of the agent.

use proptest::prelude::*;

use super::*;

/// What the kernel knows of the container, moved only by actions, and by an agent that dies at any moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Kernel {
    frozen: bool,
    /// The mark from which the next agent learns that memory was given back.
    marked: bool,
}

impl Kernel {
    fn apply(&mut self, action: Action) {
        match action {
            Action::Freeze => self.frozen = true,
            Action::Thaw => *self = Self::default(),
            Action::Reclaim => {
                assert!(self.frozen, "memory of running processes is left alone");
                self.marked = true;
            }
            Action::Terminate => assert!(!self.frozen, "a frozen process hears no signal"),
            Action::Launch => *self = Self::default(),
            _ => {}
        }
    }

    fn rung(self) -> Rung {
        match (self.frozen, self.marked) {
            (false, _) => Rung::Running,
            (true, false) => Rung::Frozen,
            (true, true) => Rung::Reclaimed,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Happening {
    Event(Event),
    /// kill -9 of the agent; the next one takes the container over.
    AgentDies,
}

/// What may come to a container that is on the ladder: an OOM ends it (`Exited`), a limit change says nothing to the machine.
fn any_happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => proptest::sample::select(ALL_EVENTS.to_vec()).prop_map(Happening::Event),
        1 => Just(Happening::AgentDies),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn machine_and_kernel_agree_on_the_rung(happenings in proptest::collection::vec((any_happening(), 0u64..90_000), 0..120)) {
        let mut machine = Machine::adopted(Rung::Running, Duration::ZERO);
        let mut kernel = Kernel::default();
        let mut now = Duration::ZERO;
        for (happening, gap) in happenings {
            now += Duration::from_millis(gap);
            match happening {
                Happening::AgentDies if machine.state().rung().is_some() => {
                    let before = machine.state();
                    machine = Machine::adopted(kernel.rung(), now);
                    prop_assert_eq!(machine.state(), before);
                }
                // Without a container there is nothing of it to be taken over.
                Happening::AgentDies => {}
                Happening::Event(event) => {
                    for action in machine.step(event, now).actions {
                        kernel.apply(action);
                    }
                }
            }
            match machine.state().rung() {
                Some(rung) => prop_assert_eq!(kernel.rung(), rung),
                // Whatever is being ended can hear it.
                None if matches!(machine.state(), State::Stopping(_)) => prop_assert!(!kernel.frozen),
                None => {}
            }
        }
    }

    /// From every rung a request is served at once, by the same container.
    #[test]
    fn a_request_wakes_from_every_rung(down in 0usize..4, by_pressure: bool) {
        let mut machine = Machine::adopted(Rung::Running, Duration::ZERO);
        let steps = match by_pressure {
            true => [Event::PressureFreeze, Event::PressureReclaim, Event::PressureReclaim],
            false => [Event::IdleFreeze, Event::IdleReclaim, Event::IdleReclaim],
        };
        for event in steps.into_iter().take(down) {
            machine.step(event, Duration::ZERO);
        }
        let slept = machine.state().rests();
        let step = machine.step(Event::Request, Duration::ZERO);
        prop_assert_eq!(step.verdict, Verdict::Go);
        prop_assert_eq!(machine.state(), State::Running);
        prop_assert_eq!(step.actions, if slept { vec![Action::Thaw] } else { vec![] });
    }
}

const RUNGS: [Rung; 3] = [Rung::Running, Rung::Frozen, Rung::Reclaimed];

#[test]
fn an_end_on_every_rung() {
    for rung in RUNGS {
        let thaw = (rung != Rung::Running).then_some(Action::Thaw);
        for (event, after, last) in [
            (Event::Exited, After::Crashed, Action::CleanUp),
            (Event::Stop, After::Sleep, Action::Terminate),
            (Event::Down, After::Down, Action::Terminate),
            (Event::Restart, After::Start, Action::Terminate),
            (Event::IdleStop, After::Sleep, Action::Terminate),
            (Event::Recycle, After::Sleep, Action::Terminate),
            (Event::Withdraw, After::Gone, Action::Terminate),
        ] {
            let mut machine = Machine::adopted(rung, Duration::ZERO);
            let step = machine.step(event, Duration::from_secs(60));
            let expected: Vec<Action> = thaw.into_iter().chain([last]).collect();
            assert_eq!(
                (step.actions, machine.state()),
                (expected, State::Stopping(after))
            );
            // Who asks meanwhile gets the next container, unless the operator does not want one.
            let held = machine
                .step(Event::Request, Duration::from_secs(60))
                .verdict;
            match after {
                After::Down | After::Gone => assert!(matches!(held, Verdict::Refuse(_))),
                _ => assert_eq!(held, Verdict::Hold),
            }
        }
    }
}

#[test]
fn pressure_stops_only_what_rests_and_skips_no_rung_else() {
    let step = |rung, event| {
        let mut machine = Machine::adopted(rung, Duration::ZERO);
        let verdict = machine.step(event, Duration::ZERO).verdict;
        (verdict, machine.state())
    };
    let stale = |rung, event| step(rung, event).0 == Verdict::Stale;
    assert!(stale(Rung::Running, Event::PressureStop));
    assert!(stale(Rung::Running, Event::PressureReclaim));
    assert!(stale(Rung::Running, Event::Arrival));
    assert!(stale(Rung::Reclaimed, Event::PressureFreeze));
    assert_eq!(step(Rung::Running, Event::PressureFreeze).1, State::Frozen);
    assert_eq!(
        step(Rung::Frozen, Event::PressureReclaim).1,
        State::Reclaimed
    );
    // Where there is no swap there is nothing to give back, so the next rung is the last.
    for rung in [Rung::Frozen, Rung::Reclaimed] {
        let (_, state) = step(rung, Event::PressureStop);
        assert_eq!(state, State::Stopping(After::Sleep));
    }
}

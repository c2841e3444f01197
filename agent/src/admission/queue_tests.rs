//! Random arrivals, ends and hang-ups against what is promised of the queue.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::queue::Queue;

#[derive(Debug, Clone)]
enum Happening {
    /// A start of this owner comes.
    Comes(u8),
    /// One that waits gives up: which, counted over all.
    GivesUp(usize),
    /// One that has a place is through.
    Through,
    /// The number of places changes.
    Places(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (0u8..5).prop_map(Happening::Comes),
        1 => (0usize..100).prop_map(Happening::GivesUp),
        4 => Just(Happening::Through),
        1 => (0usize..5).prop_map(Happening::Places),
    ]
}

/// What an onlooker sees.
#[derive(Default)]
struct World {
    waiting: BTreeSet<(u8, u64)>,
    under_way: usize,
    /// Of (who waits, another): how often the other had a turn meanwhile.
    passed: HashMap<(u8, u8), u32>,
}

impl World {
    fn waits(&self, owner: u8) -> bool {
        self.waiting.iter().any(|(other, _)| *other == owner)
    }

    fn turn_of(&mut self, owner: u8) -> Result<(), TestCaseError> {
        self.passed.retain(|(waits, _), _| *waits != owner);
        let others: BTreeSet<u8> = self.waiting.iter().map(|(other, _)| *other).collect();
        for other in others.into_iter().filter(|other| *other != owner) {
            let times = self.passed.entry((other, owner)).or_default();
            *times += 1;
            prop_assert!(*times <= 1, "{owner} had two turns while {other} waited");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn owners_take_turns_and_nobody_is_lost(happenings in proptest::collection::vec(happening(), 0..200)) {
        let mut queue = Queue::new(2);
        let mut world = World::default();
        for (arrival, happening) in happenings.into_iter().enumerate() {
            let arrival = arrival as u64;
            match happening {
                Happening::Comes(owner) => {
                    let free = world.waiting.is_empty() && world.under_way < queue.places();
                    prop_assert_eq!(queue.take(), free);
                    if free {
                        world.under_way += 1;
                    } else {
                        queue.enter(owner, arrival, (owner, arrival));
                        world.waiting.insert((owner, arrival));
                    }
                }
                Happening::GivesUp(which) => {
                    let Some((owner, arrival)) = world.waiting.iter().nth(which).copied() else { continue };
                    prop_assert_eq!(queue.leave(&owner, arrival), Some((owner, arrival)));
                    prop_assert_eq!(queue.leave(&owner, arrival), None);
                    world.waiting.remove(&(owner, arrival));
                    if !world.waits(owner) {
                        world.passed.retain(|(waits, _), _| *waits != owner);
                    }
                }
                Happening::Through if world.under_way > 0 => {
                    queue.give_back();
                    world.under_way -= 1;
                }
                Happening::Through => {}
                Happening::Places(places) => queue.set_places(places),
            }
            while let Some((owner, arrival)) = queue.admit() {
                let first = world.waiting.iter().find(|(other, _)| *other == owner).copied();
                prop_assert_eq!(first, Some((owner, arrival)), "within an owner by arrival");
                world.turn_of(owner)?;
                world.waiting.remove(&(owner, arrival));
                world.under_way += 1;
                prop_assert!(world.under_way <= queue.places());
            }
            prop_assert!(world.waiting.is_empty() || world.under_way >= queue.places(), "a place is left unused");
            prop_assert!(queue.places() >= 1);
            prop_assert_eq!((queue.taken(), queue.waiting()), (world.under_way, world.waiting.len()));
        }
    }
}

#[test]
fn who_came_before_goes_before_also_when_it_got_here_later() {
    let mut queue = Queue::new(1);
    assert!(queue.take());
    queue.enter("a", 7, "second");
    queue.enter("a", 3, "first");
    queue.give_back();
    assert_eq!(queue.admit(), Some("first"));
}

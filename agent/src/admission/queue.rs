//! Who may start next: a number of places, and whoever waits for one, by owner. Pure.
//!
//! Owners take turns; within an owner it goes by arrival. Nothing here is searched through: each step costs the logarithm
//! of those who wait.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Places for starts, and the starts that wait for one.
#[derive(Debug)]
pub(super) struct Queue<O, T> {
    places: usize,
    taken: usize,
    waiting: usize,
    /// Whose turn it is: the least number first.
    turns: BTreeMap<u64, O>,
    lines: HashMap<O, Line<T>>,
    next_turn: u64,
}

/// The waiting starts of one owner; never empty.
#[derive(Debug)]
struct Line<T> {
    turn: u64,
    /// By number of arrival.
    starts: BTreeMap<u64, T>,
}

impl<O: Clone + Eq + Hash, T> Queue<O, T> {
    pub(super) fn new(places: usize) -> Self {
        Self {
            places,
            taken: 0,
            waiting: 0,
            turns: BTreeMap::new(),
            lines: HashMap::new(),
            next_turn: 0,
        }
    }

    /// How many places there are now.
    pub(super) fn places(&self) -> usize {
        self.places
    }

    /// How many are taken: more than there are, for a while after their number was lowered.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// From now on there are so many places; who has one keeps it.
    pub(super) fn set_places(&mut self, places: usize) {
        self.places = places.max(1);
    }

    /// Takes a free place, if nobody waits for it.
    pub(super) fn take(&mut self) -> bool {
        let free = self.waiting == 0 && self.taken < self.places;
        self.taken += usize::from(free);
        free
    }

    /// Gives a place back.
    pub(super) fn give_back(&mut self) {
        self.taken = self.taken.saturating_sub(1);
    }

    /// Waits for a place, behind all starts of the owner that arrived before. `arrival` is a number of its own.
    pub(super) fn enter(&mut self, owner: O, arrival: u64, start: T) {
        self.waiting += 1;
        let line = self.lines.entry(owner.clone()).or_insert_with(|| {
            self.next_turn += 1;
            self.turns.insert(self.next_turn, owner);
            Line {
                turn: self.next_turn,
                starts: BTreeMap::new(),
            }
        });
        line.starts.insert(arrival, start);
    }

    /// Waits no longer; None if it does not wait.
    pub(super) fn leave(&mut self, owner: &O, arrival: u64) -> Option<T> {
        let line = self.lines.get_mut(owner)?;
        let start = line.starts.remove(&arrival)?;
        self.waiting -= 1;
        if line.starts.is_empty() {
            self.turns.remove(&line.turn);
            self.lines.remove(owner);
        }
        Some(start)
    }

    /// The start whose turn it is, if a place is free: it has that place then.
    pub(super) fn admit(&mut self) -> Option<T> {
        if self.taken >= self.places {
            return None;
        }
        let (_, owner) = self.turns.pop_first()?;
        let line = self.lines.get_mut(&owner)?;
        let (_, start) = line.starts.pop_first()?;
        self.waiting -= 1;
        self.taken += 1;
        if line.starts.is_empty() {
            self.lines.remove(&owner);
        } else {
            // Behind all others who wait.
            self.next_turn += 1;
            line.turn = self.next_turn;
            self.turns.insert(line.turn, owner);
        }
        Some(start)
    }
}

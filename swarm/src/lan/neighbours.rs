//! Who has answered on the local network.
//! Knows names, addresses and what each shows. Does not know which topics we are in.

use std::collections::{HashMap, VecDeque};

use super::announcement::Shown;
use crate::Topic;
use crate::limits::LAN_NEIGHBOURS_MAX;
use crate::target::{Address, PeerId, Target};

/// A node on the local network, as it shows itself.
#[derive(Debug, Clone)]
pub(super) struct Neighbour {
    pub(super) instance: String,
    pub(super) addresses: Vec<Address>,
    pub(super) shown: Shown,
}

impl Neighbour {
    pub(super) fn serves(&self, topic: &Topic, today: u64) -> bool {
        self.shown.has(topic, today, &self.instance)
    }

    pub(super) fn target(&self) -> Target {
        Target {
            id: PeerId::Name(format!("lan:{}", self.instance).into()),
            addresses: self.addresses.clone(),
        }
    }
}

/// Nodes that have answered, as many as are worth remembering: the oldest is forgotten for a new one.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    by_instance: HashMap<String, Neighbour>,
    order: VecDeque<String>,
}

impl Neighbours {
    pub(super) fn enter(&mut self, neighbour: Neighbour) {
        let instance = neighbour.instance.clone();
        if self
            .by_instance
            .insert(instance.clone(), neighbour)
            .is_some()
        {
            return;
        }
        self.order.push_back(instance);
        if self.order.len() > LAN_NEIGHBOURS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_instance.remove(&oldest);
        }
    }

    pub(super) fn remove(&mut self, instance: &str) {
        if self.by_instance.remove(instance).is_some() {
            self.order.retain(|each| each != instance);
        }
    }

    pub(super) fn under(&self, topic: &Topic, today: u64) -> Vec<Neighbour> {
        let all = self.by_instance.values();
        all.filter(|each| each.serves(topic, today))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(number: usize, topic: &Topic) -> Neighbour {
        let instance = format!("{number:032x}");
        Neighbour {
            addresses: vec![Address::Lan(([192, 168, 1, 1], 4000).into())],
            shown: Shown::new([*topic].iter(), 1, &instance),
            instance,
        }
    }

    #[test]
    fn neighbours_are_found_by_topic_and_their_number_is_bounded() {
        let (ours, other) = (Topic::from_name("ours"), Topic::from_name("other"));
        let mut neighbours = Neighbours::default();
        neighbours.enter(neighbour(0, &ours));
        neighbours.enter(neighbour(1, &other));
        assert_eq!(neighbours.under(&ours, 1).len(), 1);
        neighbours.remove(&format!("{:032x}", 0));
        assert!(neighbours.under(&ours, 1).is_empty());
        for number in 0..LAN_NEIGHBOURS_MAX + 10 {
            neighbours.enter(neighbour(number, &ours));
        }
        assert_eq!(neighbours.under(&ours, 1).len(), LAN_NEIGHBOURS_MAX);
        assert_eq!(neighbours.order.len(), LAN_NEIGHBOURS_MAX);
    }
}

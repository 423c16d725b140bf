//! The number of open clients in each room.

use super::client::ClientNumber;

/// The number of open clients in each room, without those that take part in the churn.
pub struct RoomMembers {
    counts: Vec<u32>,
    /// The clients with this number and higher ones take part in the churn.
    stayers: ClientNumber,
}

impl RoomMembers {
    /// Returns empty rooms.
    pub fn new(rooms: usize) -> RoomMembers {
        RoomMembers { counts: vec![0; rooms], stayers: ClientNumber::MAX }
    }

    /// Counts the members again, after a change of the clients that take part in the churn.
    pub fn recount(&mut self, stayers: ClientNumber, open: impl Iterator<Item = ClientNumber>) {
        self.stayers = stayers;
        self.counts.fill(0);
        open.for_each(|client| self.opened(client));
    }

    /// Adds a client to its room.
    pub fn opened(&mut self, client: ClientNumber) {
        self.count(client).into_iter().for_each(|count| *count += 1);
    }

    /// Removes a client from its room.
    pub fn ended(&mut self, client: ClientNumber) {
        self.count(client).into_iter().for_each(|count| {
            *count = count.checked_sub(1).expect("a client that has ended was open");
        });
    }

    /// Returns the number of members of a room.
    pub fn of(&self, room: usize) -> u64 {
        self.counts[room].into()
    }

    /// Returns the number of rooms.
    pub fn rooms(&self) -> usize {
        self.counts.len()
    }

    fn count(&mut self, client: ClientNumber) -> Option<&mut u32> {
        let room = client as usize % self.counts.len();
        (client < self.stayers).then(|| &mut self.counts[room])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_those_that_are_open_and_stay() {
        let mut members = RoomMembers::new(3);
        (0..10).for_each(|client| members.opened(client));
        members.ended(3);
        assert_eq!([0, 1, 2].map(|room| members.of(room)), [3, 3, 3]);
        members.recount(8, (0..10).filter(|client| *client != 3));
        assert_eq!([0, 1, 2].map(|room| members.of(room)), [2, 3, 2]);
        members.ended(8);
        assert_eq!(members.of(2), 2, "churners do not count");
    }
}

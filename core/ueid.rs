// SPDX-License-Identifier: GPL-2.0

//! User-defined enterprise IDs (SMC-Rv2): hosts that have one in common may use SMC-R across
//! subnets.

#![forbid(unsafe_code)]

use super::types::Ueid;

/// The ID that every host has until its administrator manages IDs, so that two hosts need no
/// configuration.
const DEFAULT_NAME: &[u8] = b"SMC-RS.DEFAULT";

/// Most IDs of a host (`SMC_MAX_UEID`).
pub const MAX: usize = 4;

/// Why an ID was not taken, or not taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no valid ID.
    Invalid,
    /// There is room for no more.
    Full,
    /// It is there already.
    Exists,
    /// It is not there.
    Missing,
}

/// The IDs of a host, in the order in which they were added.
#[derive(Clone, Debug)]
pub struct Table {
    list: [Option<Ueid>; MAX],
    /// The administrator has added or removed one: the default is not there by itself any more.
    managed: bool,
}

impl Table {
    /// The default.
    pub fn new() -> Self {
        Self {
            list: [Ueid::from_name(DEFAULT_NAME), None, None, None],
            managed: false,
        }
    }

    /// The IDs, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Ueid> {
        self.list.iter().flatten()
    }

    /// The IDs in an array, and their number.
    pub fn list(&self) -> ([Ueid; MAX], usize) {
        let mut list = [Ueid::PLACEHOLDER; MAX];
        let mut count = 0usize;
        for (to, from) in list.iter_mut().zip(self.iter()) {
            *to = *from;
            count = count.saturating_add(1);
        }
        (list, count)
    }

    /// Adds an ID. The first one takes the place of the default.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    pub fn add(&mut self, padded: [u8; 32]) -> Result<(), Refusal> {
        let ueid = Ueid::new(padded).ok_or(Refusal::Invalid)?;
        if !self.managed {
            *self = Self {
                list: [Some(ueid), None, None, None],
                managed: true,
            };
            return Ok(());
        }
        // In the order of C: a full table says so first.
        let place = self.list.iter_mut().position(|place| place.is_none());
        let place = place.ok_or(Refusal::Full)?;
        if self.iter().any(|other| *other == ueid) {
            return Err(Refusal::Exists);
        }
        if let Some(place) = self.list.get_mut(place) {
            *place = Some(ueid);
        }
        // The default alone is what was there before anybody has managed IDs.
        let before = Self::new();
        if self.list == before.list {
            *self = before;
        }
        Ok(())
    }

    /// Takes an ID out; also the default.
    ///
    /// # Errors
    ///
    /// [`Refusal::Missing`].
    pub fn remove(&mut self, padded: [u8; 32]) -> Result<(), Refusal> {
        let found = self.list.iter().position(|place| {
            place
                .as_ref()
                .is_some_and(|ueid| *ueid.as_bytes() == padded)
        });
        let found = found.ok_or(Refusal::Missing)?;
        // The others stay in order, with no hole among them.
        if let Some(rest) = self.list.get_mut(found..) {
            rest.rotate_left(1);
        }
        if let Some(last) = self.list.last_mut() {
            *last = None;
        }
        self.managed = true;
        Ok(())
    }

    /// Takes all out, the default too.
    pub fn flush(&mut self) {
        *self = Self {
            list: [None; MAX],
            managed: true,
        };
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn padded(name: &str) -> [u8; 32] {
        let mut padded = [b' '; 32];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        padded
    }

    fn names(table: &Table) -> std::vec::Vec<std::string::String> {
        table.iter().map(|ueid| std::format!("{ueid}")).collect()
    }

    #[test]
    fn the_default_is_there_until_ids_are_managed() {
        let mut table = Table::new();
        assert_eq!(names(&table), ["SMC-RS.DEFAULT"]);
        assert_eq!(table.remove(padded("A")), Err(Refusal::Missing));
        assert_eq!(names(&table), ["SMC-RS.DEFAULT"]);
        assert_eq!(table.add(padded("a")), Err(Refusal::Invalid));
        assert_eq!(names(&table), ["SMC-RS.DEFAULT"]);
        assert_eq!(table.add(padded("A")), Ok(()));
        assert_eq!(names(&table), ["A"]);
        assert_eq!(table.add(padded("SMC-RS.DEFAULT")), Ok(()));
        assert_eq!(names(&table), ["A", "SMC-RS.DEFAULT"]);
    }

    #[test]
    fn without_the_default_there_is_none() {
        let mut table = Table::new();
        assert_eq!(table.remove(padded("SMC-RS.DEFAULT")), Ok(()));
        assert!(names(&table).is_empty());
        assert_eq!(table.list().1, 0);
        let mut table = Table::new();
        table.flush();
        assert!(names(&table).is_empty());
        assert_eq!(table.add(padded("B")), Ok(()));
        assert_eq!(names(&table), ["B"]);
    }

    #[test]
    fn the_default_alone_is_as_before() {
        let mut table = Table::new();
        table.flush();
        assert_eq!(table.add(padded("SMC-RS.DEFAULT")), Ok(()));
        assert_eq!(names(&table), ["SMC-RS.DEFAULT"]);
        assert_eq!(table.add(padded("A")), Ok(()));
        assert_eq!(names(&table), ["A"]);
    }

    #[test]
    fn four_and_no_more() {
        let mut table = Table::new();
        for name in ["A", "B", "C", "D"] {
            assert_eq!(table.add(padded(name)), Ok(()));
        }
        assert_eq!(table.add(padded("E")), Err(Refusal::Full));
        assert_eq!(table.add(padded("A")), Err(Refusal::Full));
        assert_eq!(table.remove(padded("B")), Ok(()));
        assert_eq!(names(&table), ["A", "C", "D"]);
        assert_eq!(table.add(padded("C")), Err(Refusal::Exists));
        let (list, count) = table.list();
        assert_eq!(list[..count].len(), 3);
        assert_eq!(list[1].name(), b"C");
    }
}

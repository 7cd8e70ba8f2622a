//! What a repair found, rebuilt, set aside and lost, as data and as text.
//!
//! The text is the report file that stays with the damaged files, so it names every id.

use std::fmt;

use nephrite_format::Id;

use crate::verify::Damage;

/// The outcome of a repair, or of a dry run: then it is what would be done.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// Whether only looking was asked for.
    pub dry_run: bool,
    /// Every damaged place.
    pub damage: Vec<Damage>,
    /// Files made anew.
    pub rebuilt: Vec<Rebuilt>,
    /// Files moved out of the way.
    pub set_aside: Vec<SetAside>,
    /// What is not there any more, or only in an older form.
    pub losses: Vec<Loss>,
    /// What could not be found out, though nothing says that it is lost.
    pub cautions: Vec<String>,
    /// Directory within the store that holds what was set aside.
    pub directory: Option<String>,
}

/// A file made anew.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rebuilt {
    /// The new file within the store directory; in a dry run the kind of file.
    pub file: String,
    /// The database, for segments.
    pub database: Option<String>,
    /// From what it was made.
    pub what: String,
}

/// A file moved out of the way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetAside {
    /// File name within the store directory before.
    pub file: String,
    /// Why.
    pub why: String,
}

/// How something is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LossKind {
    /// These ids had a vector that cannot be read any more: they are absent now.
    Ids,
    /// Ids between two bounds, their names unknown: absent now, or served in an older form.
    Range,
    /// A newer write of these ids may be lost: an older vector is served, or none.
    Doubtful,
    /// Records of the log that cannot be read; which ids they changed is not known.
    Records,
}

impl LossKind {
    /// The word for it, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ids => "ids",
            Self::Range => "range",
            Self::Doubtful => "doubtful",
            Self::Records => "records",
        }
    }
}

/// Something that is lost.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loss {
    /// How.
    pub kind: LossKind,
    /// The database, where it is known.
    pub database: Option<String>,
    /// The ids, for [`LossKind::Ids`] and [`LossKind::Doubtful`], ascending.
    pub ids: Vec<Id>,
    /// Smallest and largest id that can be meant, for [`LossKind::Range`].
    pub range: Option<(Id, Id)>,
    /// How many ids or records, where it is known.
    pub count: Option<u64>,
    /// The damaged file within the store directory.
    pub file: String,
    /// What happened to it.
    pub what: String,
}

impl RepairReport {
    /// Whether nothing was damaged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }

    /// Whether nothing is lost or doubtful.
    #[must_use]
    pub fn is_lossless(&self) -> bool {
        self.losses.is_empty()
    }

    pub(super) fn note(&mut self, file: &str, offset: u64, database: Option<&str>, what: String) {
        self.damage.push(Damage {
            file: file.to_owned(),
            page: None,
            offset,
            database: database.map(str::to_owned),
            what,
        });
    }

    pub(super) fn aside(&mut self, file: &str, why: impl Into<String>) {
        if self.set_aside.iter().all(|known| known.file != file) {
            self.set_aside.push(SetAside { file: file.to_owned(), why: why.into() });
        }
    }
}

impl fmt::Display for RepairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return writeln!(f, "nothing is damaged");
        }
        for Damage { file, offset, what, .. } in &self.damage {
            writeln!(f, "damaged: {file} at byte {offset}: {what}")?;
        }
        for Rebuilt { file, what, .. } in &self.rebuilt {
            writeln!(f, "rebuilt: {file}: {what}")?;
        }
        for SetAside { file, why } in &self.set_aside {
            writeln!(f, "set aside: {file}: {why}")?;
        }
        if self.losses.is_empty() {
            writeln!(f, "lost: nothing")?;
        }
        self.losses.iter().try_for_each(|loss| writeln!(f, "{loss}"))?;
        self.cautions.iter().try_for_each(|caution| writeln!(f, "caution: {caution}"))
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.kind == LossKind::Doubtful { "doubtful" } else { "lost" };
        write!(f, "{word}: {}", self.file)?;
        if let Some(database) = &self.database {
            write!(f, " (database {database})")?;
        }
        write!(f, ": {}", self.what)?;
        if let Some(count) = self.count {
            write!(f, "; {count} in all")?;
        }
        if let Some((first, last)) = &self.range {
            write!(f, "; ids from {first} to {last}")?;
        }
        for (position, id) in self.ids.iter().enumerate() {
            write!(f, "{}{id}", if position == 0 { "; ids " } else { ", " })?;
        }
        Ok(())
    }
}

//! Writing a namespace, a kind or an instance as a stream of records.
//!
//! What an instance has is read in one transaction, and so is of one moment, if it is no more than
//! some megabytes. A larger one takes several, and is of one moment too: they look whether the instance
//! went on meanwhile, and whether an operator moved messages; if so, the export ends with an error that
//! says so. Pause what is large. What is only pushed meanwhile does not matter.
//!
//! An export that was interrupted goes on behind the last instance that is whole in what it has
//! written: instances follow each other in the order of their keys.

mod read;

use super::Admin;
use super::error::AdminError;
use super::page::{Damage, Place};
use super::record::{Body, FORMAT, Record, VERSION};
use super::walk::{Found, Walk};
use crate::durable::pause;
use crate::id::InstanceId;
use read::{Next, Within};

/// How many instances without anything to export one transaction passes over.
const STEPS: usize = 200;

/// What to export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Namespace,
    /// The instances of a kind, and its pause.
    Kind(String),
    /// One instance.
    Instance(InstanceId),
}

/// An export under way. See [`Admin::export`].
#[derive(Debug)]
pub struct Export<'a> {
    admin: &'a Admin,
    scope: Scope,
    step: Step,
    records: u64,
    damaged: Vec<Damage>,
    /// Of an export that was interrupted: how many of its records were met, and the instance that
    /// they are in.
    met: u64,
    within: Option<InstanceId>,
}

#[derive(Debug, Clone)]
enum Step {
    Header,
    Kinds,
    Walk(Place),
    Within(Box<Within>),
    End,
    Done,
}

impl Admin {
    /// Exports a part of the namespace: state, mailboxes in their order, dead letters and pauses. The
    /// [records](Record) can be [imported](Self::import) into any store.
    #[must_use]
    pub fn export(&self, scope: Scope) -> Export<'_> {
        Export {
            admin: self,
            scope,
            step: Step::Header,
            records: 0,
            damaged: Vec::new(),
            met: 0,
            within: None,
        }
    }
}

impl Export<'_> {
    /// The next records; none at the end. Some megabytes at most, but for a message or a leaf that is
    /// larger.
    ///
    /// # Errors
    ///
    /// - [`NotFound`](super::AdminErrorKind::NotFound) if the instance is not there.
    /// - [`Refused`](super::AdminErrorKind::Refused) if an instance changed while it was exported.
    /// - Whatever the store answers; then this may be called again.
    pub async fn next(&mut self) -> Result<Option<Vec<Record>>, AdminError> {
        let bodies = match self.step.clone() {
            Step::Header => {
                self.step = Step::Kinds;
                vec![self.header()]
            }
            Step::Kinds => {
                let kinds = self.kinds().await?;
                self.step = match &self.scope {
                    Scope::Instance(instance) => self.begin(instance.clone()).await?,
                    scope => {
                        Step::Walk(Walk::new(self.admin.namespace.keys(), scope.kind()).place(0))
                    }
                };
                kinds
            }
            Step::Walk(place) => self.walk(&place).await?,
            Step::Within(within) => self.within(*within).await?,
            Step::End => {
                self.step = Step::Done;
                vec![Body::End {
                    records: self.records,
                }]
            }
            Step::Done => return Ok(None),
        };
        self.records += u64::try_from(bodies.len()).unwrap_or(u64::MAX);
        Ok(Some(bodies.into_iter().map(Record).collect()))
    }

    /// What could not be read since this was asked last, and so is not among the records.
    pub fn take_damaged(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.damaged)
    }

    /// How many records there were so far.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Tells of a record that an interrupted export of the same scope has written: all of them, in
    /// their order, before [`next`](Self::next). Whether what was written up to here is whole: then
    /// `next` goes on behind it. Whatever follows the last such record is to be cut off.
    ///
    /// What that export could not read is not told again.
    ///
    /// # Errors
    ///
    /// [`Refused`](super::AdminErrorKind::Refused) if it is an export of something else.
    pub fn written(&mut self, record: &Record) -> Result<bool, AdminError> {
        self.met += 1;
        match (&record.0, self.header()) {
            (
                Body::Header {
                    format,
                    version: VERSION,
                    namespace,
                    only_kind,
                    only_id,
                    ..
                },
                Body::Header {
                    namespace: of,
                    only_kind: kind,
                    only_id: id,
                    ..
                },
            ) if self.met == 1 && format == FORMAT => {
                let same = (namespace, only_kind, only_id) == (&of, &kind, &id);
                return match same {
                    true => Ok(false),
                    false => Err(AdminError::refused("it is an export of something else")),
                };
            }
            _ if self.met == 1 => return Err(AdminError::refused("it begins with no header")),
            (Body::Instance { kind, id, .. }, _) => {
                self.within = Some(InstanceId::new(kind.as_str(), id.as_str())?);
                return Ok(false);
            }
            (Body::InstanceEnd, _) => {
                let Some(instance) = self.within.take() else {
                    return Err(AdminError::refused("an instance ends that has not begun"));
                };
                let keys = self.admin.namespace.keys();
                self.step = match self.scope {
                    Scope::Instance(_) => Step::End,
                    Scope::Namespace | Scope::Kind(_) => Step::Walk(Place {
                        shard: keys.shard(&instance),
                        key: keys.instance(&instance).all().end.to_vec(),
                        ..Place::default()
                    }),
                };
            }
            (Body::End { .. }, _) => self.step = Step::Done,
            _ => return Ok(false),
        }
        self.records = self.met;
        Ok(true)
    }

    fn header(&self) -> Body {
        let namespace = &self.admin.namespace;
        let env = namespace.database().env();
        let (only_kind, only_id) = match &self.scope {
            Scope::Namespace => (None, None),
            Scope::Kind(kind) => (Some(kind.clone()), None),
            Scope::Instance(of) => (Some(of.kind().to_owned()), Some(of.id().to_owned())),
        };
        let prefix = namespace.keys().all().begin;
        Body::Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            id: format!("{:016x}{:016x}", env.random(), env.random()),
            namespace: prefix.escape_ascii().to_string(),
            exported_ms: self.admin.now_ms(),
            only_kind,
            only_id,
        }
    }

    async fn kinds(&mut self) -> Result<Vec<Body>, AdminError> {
        if let Scope::Instance(_) = self.scope {
            return Ok(Vec::new());
        }
        let (kinds, damaged) = self.admin.paused_kinds().await?;
        self.damaged.extend(damaged);
        let wanted = kinds
            .into_iter()
            .filter(|of| self.scope.kind().is_none_or(|kind| kind == of.kind));
        let kinds = wanted.map(|of| Body::KindPaused {
            kind: of.kind,
            pause: pause::Paused {
                since_ms: of.pause.since_ms,
                reason: of.pause.reason,
            },
        });
        Ok(kinds.collect())
    }

    async fn begin(&self, instance: InstanceId) -> Result<Step, AdminError> {
        self.admin.instance(&instance).await?;
        let all = self.admin.namespace.keys().instance(&instance).all();
        Ok(Step::Within(Box::new(Within::new(instance, all, None))))
    }

    /// Finds the next instance.
    async fn walk(&mut self, place: &Place) -> Result<Vec<Body>, AdminError> {
        let keys = self.admin.namespace.keys();
        let kind = self.scope.kind();
        let found = self.admin.look(|tx| async move {
            let mut walk = Walk::at(keys, kind, place);
            let mut damaged = Vec::new();
            for _ in 0..STEPS {
                match walk.next(&tx).await? {
                    Some(Found::Instance(found)) => {
                        return Ok((Some(found), Some(walk.place(0)), damaged));
                    }
                    Some(Found::Foreign(key)) => damaged.push(Damage::foreign(key)),
                    None => return Ok((None, None, damaged)),
                }
            }
            Ok((None, Some(walk.place(0)), damaged))
        });
        let (found, next, damaged) = found.await?;
        self.damaged.extend(damaged);
        self.step = match (found, next) {
            (Some(instance), then) => {
                let all = keys.instance(&instance).all();
                Step::Within(Box::new(Within::new(instance, all, then)))
            }
            (None, Some(place)) => Step::Walk(place),
            (None, None) => Step::End,
        };
        Ok(Vec::new())
    }

    /// Reads on in an instance.
    async fn within(&mut self, within: Within) -> Result<Vec<Body>, AdminError> {
        let admin = self.admin;
        let read = admin.look(|tx| {
            let within = within.clone();
            async move { admin.read_on(&tx, within).await }
        });
        let (bodies, next, damaged) = read.await?;
        let (next, changed) = match next {
            Next::Changed => (None, true),
            Next::More(within) => (Some(within), false),
            Next::Whole => (None, false),
        };
        if changed {
            return Err(AdminError::refused(format!(
                "{} changed while it was exported; pause it first",
                within.instance
            )));
        }
        self.damaged.extend(damaged);
        self.step = match (next, within.then) {
            (Some(within), _) => Step::Within(within),
            (None, Some(place)) => Step::Walk(place),
            (None, None) => Step::End,
        };
        Ok(bodies)
    }
}

impl Scope {
    fn kind(&self) -> Option<&str> {
        match self {
            Self::Kind(kind) => Some(kind),
            Self::Namespace | Self::Instance(_) => None,
        }
    }
}

//! The merge operator of a keyspace.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lsm_compaction::MergeFailure;
use lsm_core::merge_operator::{MergeError, MergeOperator, Operands};

use crate::callbacks::caught;
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::options::{ResolvedOptions, StoredOptions};

/// The merge operator of a keyspace.
#[derive(Debug)]
pub(crate) struct Merging {
    keyspace: Arc<str>,
    /// The name that the manifest records, if there is one.
    name: Option<Arc<str>>,
    /// Missing if nobody gave the operator with that name.
    operator: Option<Arc<dyn MergeOperator>>,
    /// A refusal in background work was reported.
    has_warned: AtomicBool,
}

impl Merging {
    pub(crate) fn new(keyspace: Arc<str>, options: &ResolvedOptions, stored: &StoredOptions) -> Self {
        let (name, operator) = (stored.merge_operator().map(Arc::from), options.merge_operator.clone());
        Self { keyspace, name, operator, has_warned: AtomicBool::new(false) }
    }

    /// The operator for flushes and compactions. For them, a panic is a refusal: the operands stay as they are.
    pub(crate) fn for_background(&self) -> Option<Arc<dyn MergeOperator>> {
        self.operator
            .as_ref()
            .map(|operator| Arc::new(Guarded(Arc::clone(operator))) as Arc<dyn MergeOperator>)
    }

    /// The event that background work kept operands, the first time.
    pub(crate) fn first_refusal(&self, failure: &MergeFailure) -> Option<EventKind> {
        if self.has_warned.swap(true, Ordering::Relaxed) {
            return None;
        }
        let operator = self.name.as_deref().unwrap_or_default();
        let message = format!(
            "merge operator {operator:?} refuses key \"{}\", among others perhaps: {}; its operands are kept",
            failure.key.escape_ascii(),
            failure.error
        );
        tracing::warn!(keyspace = &*self.keyspace, "{message}");
        let keyspace = Some(Arc::clone(&self.keyspace));
        Some(EventKind::Error { during: "merge".into(), keyspace, message: message.into() })
    }

    /// Fails if the keyspace takes no operands.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.operator.is_some() { Ok(()) } else { Err(self.missing(None)) }
    }

    /// The error that there is no operator, for a write or for a read of `key`.
    #[cold]
    fn missing(&self, key: Option<&[u8]>) -> Error {
        let why = match &self.name {
            Some(name) => format!("uses merge operator {name:?}, which is not built in"),
            None => "has no merge operator".to_owned(),
        };
        let key = key.map(|key| format!(", so key \"{}\" has no value", key.escape_ascii()));
        let detail = format!(
            "keyspace {:?} {why}{}; give it with KeyspaceOptions::merge_operator when the keyspace is first opened",
            self.keyspace,
            key.unwrap_or_default()
        );
        Error::OperatorMissing(detail.into())
    }

    /// Folds operands, if they take much memory and the operator can.
    pub(super) fn shrink(&self, key: &[u8], operands: &mut Operands) {
        if operands.are_many()
            && let Some(operator) = &self.operator
        {
            operands.shrink(&Guarded(Arc::clone(operator)), key);
        }
    }

    /// The value that `operands` make of `base`.
    #[cold]
    pub(crate) fn full(
        &self,
        key: &[u8],
        base: Option<&[u8]>,
        operands: &Operands,
    ) -> Result<Option<Vec<u8>>> {
        let Some(operator) = &self.operator else { return Err(self.missing(Some(key))) };
        match caught("a merge", || Ok(operands.full(&**operator, key, base))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.refused(key, operands, &error)),
            Err(Error::Callback(said)) => {
                let (name, key) = (operator.name(), key.escape_ascii());
                let keyspace = &self.keyspace;
                let detail =
                    format!("{said} (merge operator {name:?}, key \"{key}\" of keyspace {keyspace:?})");
                Err(Error::Callback(detail.into()))
            }
            Err(error) => Err(error),
        }
    }

    #[cold]
    fn refused(&self, key: &[u8], operands: &Operands, error: &MergeError) -> Error {
        let detail = format!(
            "merge operator {:?} refuses key \"{}\" of keyspace {:?} with {} operands: {error}; put or delete the key to \
             go on",
            self.name.as_deref().unwrap_or_default(),
            key.escape_ascii(),
            self.keyspace,
            operands.len()
        );
        Error::OperatorFailed(detail.into())
    }
}

/// Turns panics into refusals.
#[derive(Debug)]
struct Guarded(Arc<dyn MergeOperator>);

impl MergeOperator for Guarded {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn full(
        &self,
        key: &[u8],
        base: Option<&[u8]>,
        operands: &[&[u8]],
    ) -> Result<Option<Vec<u8>>, MergeError> {
        caught("a merge", || Ok(self.0.full(key, base, operands)))
            .unwrap_or_else(|error| Err(MergeError::new(error.to_string())))
    }

    fn partial(&self, key: &[u8], operands: &[&[u8]]) -> Option<Vec<u8>> {
        caught("a merge", || Ok(self.0.partial(key, operands)))
            .inspect_err(|error| tracing::warn!(%error, "merge operands were kept"))
            .unwrap_or_default()
    }
}

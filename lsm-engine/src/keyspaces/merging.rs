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
        match (&self.operator, &self.name) {
            (Some(_), _) => Ok(()),
            (None, Some(name)) => Err(self.missing(name, "")),
            (None, None) => Err(Error::OperatorMissing(
                format!(
                    "keyspace {:?} has no merge operator; give one with KeyspaceOptions::merge_operator",
                    self.keyspace
                )
                .into(),
            )),
        }
    }

    fn missing(&self, name: &str, key: &str) -> Error {
        Error::OperatorMissing(
            format!(
                "keyspace {:?} uses merge operator {name:?}, which is not built in{key}; open the keyspace with \
                 KeyspaceOptions::merge_operator",
                self.keyspace
            )
            .into(),
        )
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
    pub(super) fn full(
        &self,
        key: &[u8],
        base: Option<&[u8]>,
        operands: &Operands,
    ) -> Result<Option<Vec<u8>>> {
        let named = || format!("key \"{}\" of keyspace {:?}", key.escape_ascii(), self.keyspace);
        let Some(operator) = &self.operator else {
            let name = self.name.as_deref().unwrap_or_default();
            return Err(self.missing(name, &format!(", so key \"{}\" has no value", key.escape_ascii())));
        };
        let during = || format!("a merge of {} by operator {:?}", named(), operator.name());
        caught(&during(), || Ok(operands.full(&**operator, key, base)))?.map_err(|error| {
            let name = operator.name();
            let detail = format!(
                "merge operator {name:?} refuses {} with {} operands: {error}; put or delete the key to go on",
                named(),
                operands.len()
            );
            Error::OperatorFailed(detail.into())
        })
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

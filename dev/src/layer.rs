use std::ops::Deref;

/// Makes what it holds an `Env`, a `Vfs` or a `VfsFile`, by the methods that it changes and those of what is below.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layer<L>(pub L);

impl<L> Deref for Layer<L> {
    type Target = L;

    fn deref(&self) -> &L {
        &self.0
    }
}

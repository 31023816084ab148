/// Which versions a value may have.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    pub(super) version_min: u32,
    pub(super) version_max: u32,
}

impl Expected {
    /// The first version only: what was written once.
    pub(super) const FIRST: Self = Self { version_min: 0, version_max: 0 };

    #[inline]
    pub(super) fn has(self, version: Option<u32>) -> bool {
        version.is_some_and(|version| (self.version_min..=self.version_max).contains(&version))
    }
}

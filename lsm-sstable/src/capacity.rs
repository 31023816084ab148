/// Bytes of memory that a vector holds after `more` elements were pushed.
pub(crate) fn grown<T>(vec: &Vec<T>, more: usize) -> usize {
    let len = vec.len() + more;
    let capacity = if len <= vec.capacity() { vec.capacity() } else { len.max(2 * vec.capacity()).max(8) };
    capacity * size_of::<T>()
}

//! Objects by the handles that the guest gave them.

use std::marker::PhantomData;
use std::sync::{Arc, RwLock};

use cuda_api::CuResult;
use cuda_api::types::{CUresult, Handle, unpack_handle};
use rustc_hash::FxHashMap;

use crate::lock::{read, write};

/// The objects of one kind.
pub(crate) struct Table<H, T> {
    /// A guest that makes its handles collide slows its own session down.
    objects: RwLock<FxHashMap<u64, Arc<T>>>,
    most: usize,
    handle: PhantomData<fn(H)>,
}

impl<H: Handle, T> Table<H, T> {
    /// At most so many objects: what a guest can make of them is bounded here.
    pub(crate) fn new(most: usize) -> Self {
        Table { objects: RwLock::default(), most, handle: PhantomData }
    }

    /// Whether an object could be added under this handle now: asked before the driver makes it.
    pub(crate) fn check_free(&self, handle: H) -> CuResult<()> {
        unpack_handle(H::KIND, handle.raw()).ok_or(H::INVALID)?;
        let objects = read(&self.objects);
        if objects.len() >= self.most {
            return Err(CUresult::OUT_OF_MEMORY);
        }
        if objects.contains_key(&handle.raw()) { Err(H::INVALID) } else { Ok(()) }
    }

    /// A new object under a handle that is free. Where it cannot be added it is dropped, and thereby destroyed.
    pub(crate) fn add(&self, handle: H, object: Arc<T>) -> CuResult<()> {
        self.check_free(handle)?;
        match write(&self.objects).entry(handle.raw()) {
            std::collections::hash_map::Entry::Occupied(_) => Err(H::INVALID),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(object);
                Ok(())
            }
        }
    }

    pub(crate) fn get(&self, handle: H) -> CuResult<Arc<T>> {
        read(&self.objects).get(&handle.raw()).cloned().ok_or(H::INVALID)
    }

    /// Some object that the condition finds, and its handle.
    pub(crate) fn find(&self, condition: impl Fn(&T) -> bool) -> Option<(H, Arc<T>)> {
        let objects = read(&self.objects);
        let (handle, object) = objects.iter().find(|(_, object)| condition(object))?;
        Some((H::from_raw(*handle), object.clone()))
    }

    /// Objects that the condition finds, so many at most.
    pub(crate) fn some(&self, most: usize, condition: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        read(&self.objects).values().filter(|object| condition(object)).take(most).cloned().collect()
    }

    pub(crate) fn remove(&self, handle: H) -> CuResult<Arc<T>> {
        write(&self.objects).remove(&handle.raw()).ok_or(H::INVALID)
    }

    /// Removes what the condition finds. The objects come back, so that they are dropped without the lock.
    pub(crate) fn remove_if(&self, condition: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let mut gone = Vec::new();
        write(&self.objects).retain(|_, object| {
            let keep = !condition(object);
            if !keep {
                gone.push(object.clone());
            }
            keep
        });
        gone
    }
}

#[cfg(test)]
mod tests {
    use cuda_api::types::{CUstream, HandleKind, pack_handle};

    use super::*;

    fn handle(index: u32) -> CUstream {
        CUstream(pack_handle(HandleKind::Stream, 0, index))
    }

    #[test]
    fn only_handles_of_the_kind_and_only_once() {
        let table: Table<CUstream, u32> = Table::new(2);
        assert_eq!(table.add(CUstream(7), Arc::new(1)), Err(CUresult::INVALID_HANDLE));
        assert_eq!(
            table.add(CUstream(pack_handle(HandleKind::Event, 0, 1)), Arc::new(1)),
            Err(CUresult::INVALID_HANDLE)
        );
        table.add(handle(1), Arc::new(1)).unwrap();
        assert_eq!(table.add(handle(1), Arc::new(2)), Err(CUresult::INVALID_HANDLE));
        table.add(handle(2), Arc::new(2)).unwrap();
        assert_eq!(table.add(handle(3), Arc::new(3)), Err(CUresult::OUT_OF_MEMORY));
        assert_eq!(*table.get(handle(2)).unwrap(), 2);
        assert_eq!(table.find(|n| *n == 2).map(|(h, n)| (h, *n)), Some((handle(2), 2)));
        assert!(table.find(|n| *n == 3).is_none());
        assert_eq!(table.remove_if(|n| *n == 2).len(), 1);
        assert_eq!(table.get(handle(2)).unwrap_err(), CUresult::INVALID_HANDLE);
        assert_eq!(*table.remove(handle(1)).unwrap(), 1);
        assert!(table.remove(handle(1)).is_err());
    }
}

//! Objects by the handles that the guest gave them.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, RwLock};

use cuda_api::CuResult;
use cuda_api::types::{CUresult, Handle, unpack_handle};

use crate::lock::{read, write};

/// The objects of one kind.
pub(crate) struct Table<H, T> {
    objects: RwLock<HashMap<u64, Arc<T>>>,
    most: usize,
    handle: PhantomData<fn(H)>,
}

impl<H: Handle, T> Table<H, T> {
    /// At most so many objects: what a guest can make of them is bounded here.
    pub(crate) fn new(most: usize) -> Self {
        Table { objects: RwLock::default(), most, handle: PhantomData }
    }

    /// A new object under a handle that is free.
    pub(crate) fn add(&self, handle: H, object: Arc<T>) -> CuResult<()> {
        unpack_handle(H::KIND, handle.raw()).ok_or(H::INVALID)?;
        let mut objects = write(&self.objects);
        if objects.len() >= self.most {
            return Err(CUresult::OUT_OF_MEMORY);
        }
        match objects.entry(handle.raw()) {
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

    pub(crate) fn remove(&self, handle: H) -> CuResult<Arc<T>> {
        write(&self.objects).remove(&handle.raw()).ok_or(H::INVALID)
    }

    /// All of them, one after the other.
    pub(crate) fn each(&self, visit: impl Fn(&T)) {
        read(&self.objects).values().for_each(|object| visit(object));
    }

    /// Removes what the condition finds.
    pub(crate) fn remove_if(&self, condition: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        write(&self.objects).extract_if(|_, object| condition(object)).map(|(_, object)| object).collect()
    }
}

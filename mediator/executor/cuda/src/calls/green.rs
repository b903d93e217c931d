//! Green contexts and the resources that they are made from. The driver's record of a resource never leaves the worker, and none but
//! its own is ever given to it: the guest has a name for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::types::*;

use crate::Cuda;
use crate::calls::launch::enumerator;
use crate::context::{Context, number};
use crate::driver::DevResource;
use crate::lock::{lock, read};
use crate::objects::{Green, ResourceDesc, Stream, Uses};
use crate::session::contexts_mut;
use crate::thread::Thread;

/// Resources that are remembered; CUDA has no call that frees one, so the oldest go.
const RESOURCES_MAX: usize = 16384;
/// Groups of one split, and resources of one description.
const GROUPS_MAX: usize = 1024;

/// A resource of the driver's, and the green context that it came from.
struct Known {
    resource: DevResource,
    context: Option<Arc<Context>>,
}

/// The resources by name. The same bytes have the same name.
#[derive(Default)]
pub(crate) struct Resources {
    by_name: HashMap<u64, Known>,
    names: HashMap<DevResource, u64>,
    order: VecDeque<u64>,
    last: u64,
}

impl Resources {
    /// Names what the driver wrote, and says what of it the guest sees.
    fn name(&mut self, resource: DevResource, context: Option<&Arc<Context>>) -> DeviceResource {
        let [head, ..] = resource.head;
        let [multiprocessors, min_partition, alignment, ..] = resource.public;
        let kind = u32::try_from(head & 0xffff_ffff).unwrap_or(0);
        // CU_DEV_RESOURCE_TYPE_INVALID: an empty remainder.
        if kind == 0 {
            return DeviceResource { name: 0, kind, multiprocessors, min_partition, alignment };
        }
        let name = match self.names.get(&resource) {
            Some(name) => *name,
            None => {
                while self.order.len() >= RESOURCES_MAX {
                    let Some(oldest) = self.order.pop_front() else { break };
                    if let Some(gone) = self.by_name.remove(&oldest) {
                        self.names.remove(&gone.resource);
                    }
                }
                self.last = self.last.wrapping_add(1);
                self.names.insert(resource, self.last);
                self.order.push_back(self.last);
                self.last
            }
        };
        // Whoever asked last: bytes that a later context of the same place has are that one's.
        self.by_name.insert(name, Known { resource, context: context.cloned() });
        DeviceResource { name, kind, multiprocessors, min_partition, alignment }
    }

    /// A resource by its name, while the green context that it came from lives: the driver's record may point into that.
    fn get(&self, name: u64) -> CuResult<(DevResource, Option<Arc<Context>>)> {
        let known = self.by_name.get(&name).ok_or(CUresult::INVALID_VALUE)?;
        if known.context.as_ref().is_some_and(|context| !context.alive()) {
            return Err(CUresult::INVALID_VALUE);
        }
        Ok((known.resource, known.context.clone()))
    }
}

impl Cuda {
    fn named(
        &self,
        context: Option<&Arc<Context>>,
        ask: impl FnOnce(*mut DevResource) -> CuResult<()>,
    ) -> CuResult<DeviceResource> {
        let mut resource = DevResource::default();
        ask(&raw mut resource)?;
        Ok(lock(&self.resources).name(resource, context))
    }

    pub(crate) fn device_resource(&self, dev: i32, kind: u32) -> CuResult<DeviceResource> {
        let kind = enumerator(kind)?;
        let (device,) = self.driver.cuDeviceGet(dev)?;
        // SAFETY: room for a resource.
        self.named(None, |to| unsafe { self.driver.cuDeviceGetDevResource(device, to, kind) })
    }

    pub(crate) fn context_resource(&self, ctx: CUcontext, kind: u32) -> CuResult<DeviceResource> {
        let kind = enumerator(kind)?;
        let context = read(&self.contexts).get(number(ctx)?)?;
        // SAFETY: room for a resource.
        self.named(Some(&context), |to| unsafe { self.driver.cuCtxGetDevResource(context.raw, to, kind) })
    }

    pub(crate) fn green_resource(&self, green: CUgreenCtx, kind: u32) -> CuResult<DeviceResource> {
        let kind = enumerator(kind)?;
        let green = self.greens.get(green)?;
        // SAFETY: room for a resource.
        self.named(Some(&green.context), |to| unsafe {
            self.driver.cuGreenCtxGetDevResource(green.raw, to, kind)
        })
    }

    pub(crate) fn split_resource(
        &self,
        input: u64,
        groups: u32,
        count_only: bool,
        flags: u32,
        min_count: u32,
    ) -> CuResult<(u32, Vec<DeviceResource>, DeviceResource)> {
        let (input, context) = lock(&self.resources).get(input)?;
        let room = usize::try_from(groups).map_err(|_| CUresult::INVALID_VALUE)?;
        if room > GROUPS_MAX {
            return Err(CUresult::INVALID_VALUE);
        }
        let mut made = vec![DevResource::default(); room.max(1)];
        let (mut count, mut remaining) = (groups, DevResource::default());
        let to = if count_only { std::ptr::null_mut() } else { made.as_mut_ptr() };
        // SAFETY: an input that the driver wrote itself; room for `count` groups (none is written without an array), and for the
        // rest.
        unsafe {
            self.driver.cuDevSmResourceSplitByCount(
                to,
                &raw mut count,
                &raw const input,
                &raw mut remaining,
                flags,
                min_count,
            )
        }?;
        if count_only {
            made.clear();
        } else {
            made.truncate(usize::try_from(count).map_err(|_| CUresult::UNKNOWN)?.min(room));
        }
        let mut resources = lock(&self.resources);
        let context = context.as_ref();
        let named = made.into_iter().map(|group| resources.name(group, context)).collect();
        Ok((count, named, resources.name(remaining, context)))
    }

    pub(crate) fn describe_resources(&self, desc: CUdevResourceDesc, names: &[u8]) -> CuResult<()> {
        let (words, rest) = names.as_chunks::<8>();
        if !rest.is_empty() || words.is_empty() || words.len() > GROUPS_MAX {
            return Err(CUresult::INVALID_VALUE);
        }
        self.resource_descs.check_free(desc)?;
        let (mut resources, mut contexts) = (Vec::new(), Vec::new());
        {
            let known = lock(&self.resources);
            for word in words {
                let (resource, context) = known.get(u64::from_le_bytes(*word))?;
                resources.push(resource);
                contexts.push(context);
            }
        }
        let count = u32::try_from(resources.len()).map_err(|_| CUresult::INVALID_VALUE)?;
        // SAFETY: `count` resources that the driver wrote itself.
        let (raw,) = unsafe { self.driver.cuDevResourceGenerateDesc(resources.as_mut_ptr(), count) }?;
        self.resource_descs.add(desc, Arc::new(ResourceDesc { raw, contexts }))
    }

    pub(crate) fn green_create(
        &self,
        green: CUgreenCtx,
        ctx: CUcontext,
        primary: CUcontext,
        desc: CUdevResourceDesc,
        dev: i32,
        flags: u32,
    ) -> CuResult<()> {
        let number_of = number(ctx)?;
        self.greens.check_free(green)?;
        let desc = self.resource_descs.get(desc)?;
        if desc.contexts.iter().flatten().any(|context| !context.alive()) {
            return Err(CUresult::INVALID_VALUE);
        }
        let (device,) = self.driver.cuDeviceGet(dev)?;
        // Held meanwhile: nobody else makes the same one.
        let mut contexts = contexts_mut(self);
        contexts.check_free(number_of)?;
        let owner = contexts.get(number(primary)?)?;
        if !owner.primary || owner.device != device {
            return Err(CUresult::INVALID_CONTEXT);
        }
        let (raw,) = self.driver.cuGreenCtxCreate(desc.raw, device, flags)?;
        let undo = |error: CUresult| {
            let _ = self.driver.cuGreenCtxDestroy(raw);
            error
        };
        let (as_context,) = self.driver.cuCtxFromGreenCtx(raw).map_err(undo)?;
        let context = Arc::new(Context::green(as_context, number_of, owner));
        let made = Arc::new(Green { raw, context: context.clone() });
        self.greens.add(green, made).map_err(undo)?;
        contexts.add(context);
        Ok(())
    }

    /// A green context, out of its table already, ends: its streams first.
    pub(crate) fn green_end(&self, thread: &mut Thread, green: &Green) -> CuResult<()> {
        let _ = contexts_mut(self).remove(green.context.id, false);
        self.end_context(thread, &green.context, || self.driver.cuGreenCtxDestroy(green.raw))
    }

    pub(crate) fn green_stream(
        &self,
        stream: CUstream,
        green: CUgreenCtx,
        flags: u32,
        priority: i32,
    ) -> CuResult<()> {
        let green = self.greens.get(green)?;
        self.streams.check_free(stream)?;
        let (raw,) = self.driver.cuGreenCtxStreamCreate(green.raw, flags, priority)?;
        // It must be a non-blocking one, says CUDA, and so the driver has seen to it.
        let context = green.context.clone();
        self.streams.add(stream, Arc::new(Stream { raw, context, non_blocking: true, uses: Uses::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(mark: u64, multiprocessors: u32) -> DevResource {
        let mut resource = DevResource::default();
        resource.head[0] = 1;
        resource.head[3] = mark;
        resource.public[0] = multiprocessors;
        resource
    }

    #[test]
    fn a_name_stands_for_what_the_driver_wrote() {
        let mut resources = Resources::default();
        let (a, b) = (resources.name(resource(1, 132), None), resources.name(resource(2, 64), None));
        assert_ne!(a.name, b.name);
        assert_eq!((a.kind, a.multiprocessors, b.multiprocessors), (1, 132, 64));
        assert_eq!(resources.name(resource(1, 132), None), a, "the same record has one name");
        assert!(resources.get(b.name).is_ok_and(|(found, _)| found == resource(2, 64)));
        for none in [0, 3, u64::MAX] {
            assert_eq!(resources.get(none).map(|_| ()), Err(CUresult::INVALID_VALUE), "{none}");
        }
        assert_eq!(resources.name(DevResource::default(), None).name, 0, "an empty remainder has none");
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut resources = Resources::default();
        let first = resources.name(resource(0, 1), None).name;
        for mark in 1..=RESOURCES_MAX as u64 {
            resources.name(resource(mark, 1), None);
        }
        assert_eq!(resources.by_name.len(), RESOURCES_MAX);
        assert!(resources.get(first).is_err());
    }
}

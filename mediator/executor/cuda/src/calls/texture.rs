//! Arrays, texture and surface objects, tensor maps: the chapter's calls.

use std::sync::Arc;

use cuda_api::CuResult;
use cuda_api::calls::texture::Host;
use cuda_api::host::Access;
use cuda_api::types::*;

use crate::Cuda;
use crate::driver::ResourceDesc;
use crate::lock::lock;
use crate::objects::{View, Viewed};
use crate::thread::Thread;

/// CUresourcetype.
const ARRAY: u32 = 0;
const MIPMAPPED_ARRAY: u32 = 1;
const LINEAR: u32 = 2;
const PITCH_2D: u32 = 3;

const NO_REQUIREMENTS: CUDA_ARRAY_MEMORY_REQUIREMENTS =
    CUDA_ARRAY_MEMORY_REQUIREMENTS { size: 0, alignment: 0, reserved: [0; 4] };
const NO_PROPERTIES: CUDA_ARRAY_SPARSE_PROPERTIES = CUDA_ARRAY_SPARSE_PROPERTIES {
    tile_extent: [0; 3],
    miptail_first_level: 0,
    miptail_size: 0,
    flags: 0,
    reserved: [0; 5],
};

impl Cuda {
    /// A resource as the driver knows it: handles are looked up, and memory is the session's for its whole extent.
    fn resource(&self, resource: &Resource) -> CuResult<(ResourceDesc, Viewed)> {
        let what = u64::from(resource.num_channels).wrapping_shl(32) | u64::from(resource.format);
        let (at, viewed) = match resource.kind {
            ARRAY => {
                let array = self.array(CUarray(resource.at)).map_err(|_| CUresult::INVALID_VALUE)?;
                (array.raw as u64, Viewed::Array { _array: array })
            }
            MIPMAPPED_ARRAY => {
                let mipmap =
                    self.mipmap(CUmipmappedArray(resource.at)).map_err(|_| CUresult::INVALID_VALUE)?;
                (mipmap.raw as u64, Viewed::Mipmap { _mipmap: mipmap })
            }
            LINEAR => {
                self.memory.check(resource.at, resource.width, Access::Read)?;
                (resource.at, Viewed::Memory)
            }
            PITCH_2D => {
                let element =
                    format_bytes(resource.format, resource.num_channels).ok_or(CUresult::INVALID_VALUE)?;
                let row = cuda_api::wire::product(&[resource.width, element])?;
                let len = cuda_api::wire::rows(resource.pitch, row, resource.height)?;
                self.memory.check(resource.at, len, Access::Read)?;
                (resource.at, Viewed::Memory)
            }
            _ => return Err(CUresult::INVALID_VALUE),
        };
        let mut fields = [0; 16];
        let [first, second, third, fourth, fifth, ..] = &mut fields;
        *first = at;
        if matches!(viewed, Viewed::Memory) {
            (*second, *third) = (what, resource.width);
            (*fourth, *fifth) = (resource.height, resource.pitch);
        }
        Ok((ResourceDesc { kind: resource.kind, fields, flags: resource.flags }, viewed))
    }

    /// Makes a texture or surface object.
    fn view(
        &self,
        thread: &Thread,
        resource: &Resource,
        surface: bool,
        make: impl FnOnce(&ResourceDesc) -> CuResult<(u64,)>,
    ) -> CuResult<u64> {
        let context = thread.context()?.clone();
        lock(&self.views).check_room()?;
        let (descriptor, viewed) = self.resource(resource)?;
        let (raw,) = make(&descriptor)?;
        let view = View { raw, surface, context, resource: *resource, _viewed: viewed };
        let added = lock(&self.views).add(Arc::new(view));
        added.map_err(|view| {
            drop(view);
            self.warn_once("the driver's number of a texture or surface object is none to give out");
            CUresult::NOT_SUPPORTED
        })
    }

    fn viewed(&self, thread: &Thread, surface: bool, number: u64) -> CuResult<Arc<View>> {
        let context = thread.context()?.id;
        lock(&self.views).get(context, surface, number)
    }

    fn destroy_view(&self, thread: &Thread, surface: bool, number: u64) -> CuResult<()> {
        let context = thread.context()?.id;
        // As with the driver, there may be none of this number. It is dropped after the lock is.
        let gone = lock(&self.views).remove(context, surface, number).ok();
        drop(gone);
        Ok(())
    }
}

impl Host for Cuda {
    fn cuTensorMapEncodeTiled(&self, _: &mut Thread, arguments: &TensorMapTiled) -> CuResult<CUtensorMap> {
        self.encode_tiled(arguments)
    }

    fn cuTensorMapEncodeIm2col(&self, _: &mut Thread, arguments: &TensorMapIm2col) -> CuResult<CUtensorMap> {
        self.encode_im2col(arguments)
    }

    fn cuTensorMapEncodeIm2colWide(
        &self,
        _: &mut Thread,
        arguments: &TensorMapIm2col,
    ) -> CuResult<CUtensorMap> {
        self.encode_im2col_wide(arguments)
    }

    fn cuTensorMapReplaceAddress(
        &self,
        _: &mut Thread,
        map: &CUtensorMap,
        address: CUdeviceptr,
    ) -> CuResult<CUtensorMap> {
        self.replace_address(map, address)
    }

    fn cuArrayCreate_v2(
        &self,
        thread: &mut Thread,
        handle: CUarray,
        array: &CUDA_ARRAY_DESCRIPTOR,
    ) -> CuResult<()> {
        self.make_array(thread, handle, array)
    }

    fn cuArray3DCreate_v2(
        &self,
        thread: &mut Thread,
        handle: CUarray,
        array: &CUDA_ARRAY3D_DESCRIPTOR,
    ) -> CuResult<()> {
        self.make_array_3d(thread, handle, array)
    }

    fn cuArrayGetDescriptor_v2(&self, _: &mut Thread, array: CUarray) -> CuResult<CUDA_ARRAY_DESCRIPTOR> {
        let array = self.array(array)?;
        let mut to = CUDA_ARRAY_DESCRIPTOR { width: 0, height: 0, format: 0, num_channels: 0 };
        // SAFETY: a local of the documented type.
        unsafe { self.driver.cuArrayGetDescriptor_v2(&raw mut to, array.raw) }?;
        Ok(to)
    }

    fn cuArray3DGetDescriptor_v2(&self, _: &mut Thread, array: CUarray) -> CuResult<CUDA_ARRAY3D_DESCRIPTOR> {
        let array = self.array(array)?;
        let mut to = CUDA_ARRAY3D_DESCRIPTOR {
            width: 0,
            height: 0,
            depth: 0,
            format: 0,
            num_channels: 0,
            flags: 0,
            reserved: 0,
        };
        // SAFETY: a local of the documented type.
        unsafe { self.driver.cuArray3DGetDescriptor_v2(&raw mut to, array.raw) }?;
        Ok(to)
    }

    fn cuArrayDestroy(&self, _: &mut Thread, array: CUarray) -> CuResult<()> {
        self.destroy_array(array)
    }

    fn cuArrayGetMemoryRequirements(
        &self,
        _: &mut Thread,
        array: CUarray,
        device: i32,
    ) -> CuResult<CUDA_ARRAY_MEMORY_REQUIREMENTS> {
        let array = self.array(array)?;
        // The driver takes any number for the device.
        let mut to = NO_REQUIREMENTS;
        // SAFETY: a local of the documented type.
        unsafe { self.driver.cuArrayGetMemoryRequirements(&raw mut to, array.raw, device) }?;
        Ok(to)
    }

    fn cuArrayGetSparseProperties(
        &self,
        _: &mut Thread,
        array: CUarray,
    ) -> CuResult<CUDA_ARRAY_SPARSE_PROPERTIES> {
        let array = self.array(array)?;
        let mut to = NO_PROPERTIES;
        // SAFETY: a local of the documented type.
        unsafe { self.driver.cuArrayGetSparseProperties(&raw mut to, array.raw) }?;
        Ok(to)
    }

    fn cuArrayGetPlane(
        &self,
        thread: &mut Thread,
        plane: CUarray,
        array: CUarray,
        index: u32,
    ) -> CuResult<()> {
        self.plane(thread, plane, array, index)
    }

    fn cuMipmappedArrayCreate(
        &self,
        thread: &mut Thread,
        handle: CUmipmappedArray,
        array: &CUDA_ARRAY3D_DESCRIPTOR,
        levels: u32,
    ) -> CuResult<()> {
        self.make_mipmap(thread, handle, array, levels)
    }

    fn cuMipmappedArrayDestroy(&self, _: &mut Thread, mipmap: CUmipmappedArray) -> CuResult<()> {
        self.destroy_mipmap(mipmap)
    }

    fn cuMipmappedArrayGetLevel(
        &self,
        thread: &mut Thread,
        array: CUarray,
        mipmap: CUmipmappedArray,
        level: u32,
    ) -> CuResult<()> {
        self.level(thread, array, mipmap, level)
    }

    fn cuMipmappedArrayGetMemoryRequirements(
        &self,
        _: &mut Thread,
        mipmap: CUmipmappedArray,
        device: i32,
    ) -> CuResult<CUDA_ARRAY_MEMORY_REQUIREMENTS> {
        let mipmap = self.mipmap(mipmap)?;
        // The driver takes any number for the device.
        let mut to = NO_REQUIREMENTS;
        // SAFETY: a local of the documented type.
        unsafe { self.driver.cuMipmappedArrayGetMemoryRequirements(&raw mut to, mipmap.raw, device) }?;
        Ok(to)
    }

    fn cuMipmappedArrayGetSparseProperties(
        &self,
        _: &mut Thread,
        mipmap: CUmipmappedArray,
    ) -> CuResult<CUDA_ARRAY_SPARSE_PROPERTIES> {
        let mipmap = self.mipmap(mipmap)?;
        let mut to = NO_PROPERTIES;
        // SAFETY: a local of the documented type.
        unsafe { self.driver.cuMipmappedArrayGetSparseProperties(&raw mut to, mipmap.raw) }?;
        Ok(to)
    }

    fn cuMemcpyAtoA_v2(
        &self,
        _: &mut Thread,
        dst: CUarray,
        dst_offset: usize,
        src: CUarray,
        src_offset: usize,
        len: usize,
    ) -> CuResult<()> {
        let (dst, src) = (self.array(dst)?, self.array(src)?);
        self.driver.cuMemcpyAtoA_v2(dst.raw, dst_offset, src.raw, src_offset, len)
    }

    fn cuMemcpyAtoD_v2(
        &self,
        _: &mut Thread,
        dst: CUdeviceptr,
        src: CUarray,
        offset: usize,
        len: usize,
    ) -> CuResult<()> {
        let src = self.array(src)?;
        // SAFETY: the whole destination is this session's (the dispatch has checked it).
        unsafe { self.driver.cuMemcpyAtoD_v2(dst, src.raw, offset, len) }
    }

    fn cuMemcpyDtoA_v2(
        &self,
        _: &mut Thread,
        dst: CUarray,
        offset: usize,
        src: CUdeviceptr,
        len: usize,
    ) -> CuResult<()> {
        let dst = self.array(dst)?;
        // SAFETY: the whole source is this session's (the dispatch has checked it).
        unsafe { self.driver.cuMemcpyDtoA_v2(dst.raw, offset, src, len) }
    }

    fn cuTexObjectCreate(
        &self,
        thread: &mut Thread,
        resource: &Resource,
        texture: &CUDA_TEXTURE_DESC,
        viewed: bool,
        view: &CUDA_RESOURCE_VIEW_DESC,
    ) -> CuResult<u64> {
        // What is reserved has no meaning yet; what it may come to mean is not known to be harmless.
        let texture = CUDA_TEXTURE_DESC { reserved: [0; 12], ..*texture };
        let part = CUDA_RESOURCE_VIEW_DESC { padding: 0, reserved: [0; 16], ..*view };
        let part = if viewed { &raw const part } else { std::ptr::null() };
        self.view(thread, resource, false, |resource| {
            // SAFETY: descriptors that live through the call; what they name is this session's (`Cuda::resource`).
            unsafe { self.driver.cuTexObjectCreate(resource, &raw const texture, part) }
        })
    }

    fn cuTexObjectDestroy(&self, thread: &mut Thread, object: u64) -> CuResult<()> {
        self.destroy_view(thread, false, object)
    }

    fn cuTexObjectGetResourceDesc(&self, thread: &mut Thread, object: u64) -> CuResult<Resource> {
        Ok(self.viewed(thread, false, object)?.resource)
    }

    fn cuTexObjectGetTextureDesc(&self, thread: &mut Thread, object: u64) -> CuResult<CUDA_TEXTURE_DESC> {
        let view = self.viewed(thread, false, object)?;
        let mut to = CUDA_TEXTURE_DESC {
            address_mode: [0; 3],
            filter_mode: 0,
            flags: 0,
            max_anisotropy: 0,
            mipmap_filter_mode: 0,
            numbers: [0; 7],
            reserved: [0; 12],
        };
        // SAFETY: a local of the documented type.
        unsafe { self.driver.cuTexObjectGetTextureDesc(&raw mut to, view.raw) }?;
        Ok(to)
    }

    fn cuTexObjectGetResourceViewDesc(
        &self,
        thread: &mut Thread,
        object: u64,
    ) -> CuResult<CUDA_RESOURCE_VIEW_DESC> {
        let view = self.viewed(thread, false, object)?;
        let mut to =
            CUDA_RESOURCE_VIEW_DESC { format: 0, padding: 0, size: [0; 3], parts: [0; 4], reserved: [0; 16] };
        // SAFETY: a local of the documented type.
        unsafe { self.driver.cuTexObjectGetResourceViewDesc(&raw mut to, view.raw) }?;
        Ok(to)
    }

    fn cuSurfObjectCreate(&self, thread: &mut Thread, resource: &Resource) -> CuResult<u64> {
        self.view(thread, resource, true, |resource| {
            // SAFETY: a descriptor that lives through the call; what it names is this session's (`Cuda::resource`).
            unsafe { self.driver.cuSurfObjectCreate(resource) }
        })
    }

    fn cuSurfObjectDestroy(&self, thread: &mut Thread, object: u64) -> CuResult<()> {
        self.destroy_view(thread, true, object)
    }

    fn cuSurfObjectGetResourceDesc(&self, thread: &mut Thread, object: u64) -> CuResult<Resource> {
        Ok(self.viewed(thread, true, object)?.resource)
    }

    fn cuDeviceGetTexture1DLinearMaxWidth(
        &self,
        thread: &mut Thread,
        format: u32,
        channels: u32,
        device: i32,
    ) -> CuResult<usize> {
        let (device,) = self.driver.cuDeviceGet(device)?;
        self.with_any_context(thread, || {
            self.driver.cuDeviceGetTexture1DLinearMaxWidth(format, channels, device)
        })
        .map(|(elements,)| elements)
    }
}

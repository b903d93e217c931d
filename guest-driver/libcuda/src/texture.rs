//! Texture and surface objects. What they read is translated field by field; their numbers are the driver's own, since kernels get
//! them as parameters.

use std::ffi::c_void;

use cuda_api::calls::texture::row;
use cuda_api::guest::{finish, not_null};
use cuda_api::types::{
    CUDA_RESOURCE_VIEW_DESC, CUDA_TEXTURE_DESC, CUarray, CUmipmappedArray, Handle, Resource,
};
use cuda_api::{CUresult, CuResult};

use crate::gate;
use crate::process::initialised;

/// CUresourcetype.
const ARRAY: u32 = 0;
const MIPMAPPED_ARRAY: u32 = 1;
const LINEAR: u32 = 2;
const PITCH_2D: u32 = 3;

/// CUDA_RESOURCE_DESC as it lies in memory.
#[repr(C)]
#[derive(Clone, Copy)]
struct Descriptor {
    kind: u32,
    padding: u32,
    /// As the kind says: a handle; an address, format and channels, and sizes.
    fields: [u64; 16],
    flags: u32,
    padding_2: u32,
}

const _: () = assert!(size_of::<Descriptor>() == 144);

fn live<H: Handle>(raw: u64) -> CuResult<()> {
    initialised()?.objects.check(H::from_raw(raw)).map_err(|_| CUresult::INVALID_VALUE)
}

impl Descriptor {
    /// # Safety
    /// `from` is a CUDA_RESOURCE_DESC, or NULL.
    unsafe fn read(from: *const c_void) -> CuResult<Resource> {
        not_null(from.cast_mut())?;
        // SAFETY: not NULL; by this function's contract.
        let descriptor = unsafe { from.cast::<Descriptor>().read_unaligned() };
        let [at, what, width, height, pitch, ..] = descriptor.fields;
        let mut resource = Resource {
            kind: descriptor.kind,
            flags: descriptor.flags,
            at,
            format: 0,
            num_channels: 0,
            width: 0,
            height: 0,
            pitch: 0,
        };
        match descriptor.kind {
            ARRAY => live::<CUarray>(at)?,
            MIPMAPPED_ARRAY => live::<CUmipmappedArray>(at)?,
            LINEAR | PITCH_2D => {
                (resource.format, resource.num_channels) = (what as u32, (what >> 32) as u32);
                resource.width = width;
                if descriptor.kind == PITCH_2D {
                    (resource.height, resource.pitch) = (height, pitch);
                }
            }
            _ => return Err(CUresult::INVALID_VALUE),
        }
        Ok(resource)
    }

    /// # Safety
    /// `to` has room for a CUDA_RESOURCE_DESC.
    unsafe fn write(resource: &Resource, to: *mut c_void) {
        let mut fields = [0; 16];
        fields[0] = resource.at;
        fields[1] = u64::from(resource.num_channels) << 32 | u64::from(resource.format);
        fields[2] = resource.width;
        fields[3] = resource.height;
        fields[4] = resource.pitch;
        let descriptor =
            Descriptor { kind: resource.kind, padding: 0, fields, flags: resource.flags, padding_2: 0 };
        // SAFETY: by this function's contract.
        unsafe { to.cast::<Descriptor>().write_unaligned(descriptor) };
    }
}

/// cuTexObjectCreate.
pub unsafe fn cuTexObjectCreate(
    to: *mut u64,
    resource: *const c_void,
    texture: *const CUDA_TEXTURE_DESC,
    view: *const CUDA_RESOURCE_VIEW_DESC,
) -> CUresult {
    finish((|| {
        not_null(to)?;
        // SAFETY: CUDA's contract with the caller.
        let resource = unsafe { Descriptor::read(resource) }?;
        not_null(texture.cast_mut())?;
        // SAFETY: not NULL; CUDA's contract with the caller.
        let texture = unsafe { texture.read_unaligned() };
        let viewed = !view.is_null();
        let none =
            CUDA_RESOURCE_VIEW_DESC { format: 0, padding: 0, size: [0; 3], parts: [0; 4], reserved: [0; 16] };
        // SAFETY: as above, where it is not NULL.
        let view = if viewed { unsafe { view.read_unaligned() } } else { none };
        let object = gate::call::<row::cuTexObjectCreate>((&resource, &texture, viewed, &view))?;
        // SAFETY: not NULL; room for a number by CUDA's contract.
        unsafe { to.write(object) };
        Ok(())
    })())
}

/// cuTexObjectGetResourceDesc.
pub unsafe fn cuTexObjectGetResourceDesc(to: *mut c_void, object: u64) -> CUresult {
    finish((|| {
        not_null(to)?;
        let resource = gate::call::<row::cuTexObjectGetResourceDesc>((object,))?;
        // SAFETY: not NULL; room by CUDA's contract.
        unsafe { Descriptor::write(&resource, to) };
        Ok(())
    })())
}

/// cuSurfObjectCreate.
pub unsafe fn cuSurfObjectCreate(to: *mut u64, resource: *const c_void) -> CUresult {
    finish((|| {
        not_null(to)?;
        // SAFETY: CUDA's contract with the caller.
        let resource = unsafe { Descriptor::read(resource) }?;
        let object = gate::call::<row::cuSurfObjectCreate>((&resource,))?;
        // SAFETY: not NULL; room for a number by CUDA's contract.
        unsafe { to.write(object) };
        Ok(())
    })())
}

/// cuSurfObjectGetResourceDesc.
pub unsafe fn cuSurfObjectGetResourceDesc(to: *mut c_void, object: u64) -> CUresult {
    finish((|| {
        not_null(to)?;
        let resource = gate::call::<row::cuSurfObjectGetResourceDesc>((object,))?;
        // SAFETY: not NULL; room by CUDA's contract.
        unsafe { Descriptor::write(&resource, to) };
        Ok(())
    })())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_survives_its_layout() {
        let resource = Resource {
            kind: PITCH_2D,
            flags: 0,
            at: 0x7000_0000,
            format: 0x20,
            num_channels: 4,
            width: 64,
            height: 32,
            pitch: 1024,
        };
        let mut bytes = [0u64; 18];
        // SAFETY: 144 bytes each.
        let read = unsafe {
            Descriptor::write(&resource, bytes.as_mut_ptr().cast());
            Descriptor::read(bytes.as_ptr().cast())
        };
        assert_eq!(read, Ok(resource));
        assert_eq!(bytes[..6], [3, 0x7000_0000, 4 << 32 | 0x20, 64, 32, 1024]);
        bytes[0] = 4;
        // SAFETY: as above.
        assert_eq!(unsafe { Descriptor::read(bytes.as_ptr().cast()) }, Err(CUresult::INVALID_VALUE));
    }
}

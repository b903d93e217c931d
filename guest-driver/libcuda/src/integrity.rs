//! The handshake by which NVIDIA's runtime library (cudart) recognises the driver that it was built to work with: a keyed
//! hash over what the two already know of each other. cudart asks three times while it initialises and refuses every call
//! when an answer is wrong.
//!
//! This is compatibility with NVIDIA's own unmodified runtime and no protection of anything: it unlocks nothing that the
//! real driver withholds, its key and layout are published in other open implementations of this library, and at the other
//! end of every call that follows stands NVIDIA's genuine driver.
//!
//! The hash is HMAC (RFC 2104) over MD2 (RFC 1319), whose block size is 16 bytes. `tools/integrity_vector.py` computes the
//! expected values of the tests with code of its own.

use cuda_api::CuResult;
use cuda_api::info::DeviceInfo;
use cuda_api::types::attribute::{PCI_BUS_ID, PCI_DEVICE_ID, PCI_DOMAIN_ID};
use hmac::{Hmac, KeyInit, Mac};
use md2::Md2;

/// The hash's key.
const KEY: [u8; 16] =
    [0x14, 0x6a, 0xdd, 0xae, 0x53, 0xa9, 0xa7, 0x52, 0xaa, 0x08, 0x41, 0x36, 0x0b, 0xf5, 0x5a, 0x9f];

/// The answer to a version whose last decimal is 0, as bytes in memory.
const FIXED_0: [u8; 16] =
    [0x5c, 0x67, 0xcb, 0x03, 0x1c, 0x18, 0x41, 0x33, 0xe8, 0xd1, 0x4c, 0x1f, 0xaa, 0x83, 0xd3, 0x8e];
/// The answer to a version whose last decimal is 1.
const FIXED_1: [u8; 16] =
    [0x5c, 0x67, 0xcb, 0x03, 0x1c, 0x18, 0x41, 0x18, 0xe8, 0xd1, 0x4c, 0x1f, 0xaa, 0x83, 0xd3, 0x8e];

/// What the answer is computed from, besides the devices. The runtime computes the same from its own view, so each value
/// is the one that this process's driver shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The driver version, as cuDriverGetVersion reports it.
    pub driver_version: i32,
    /// The runtime's version, plus 0, 1 or 2.
    pub version: u32,
    /// This process.
    pub pid: u32,
    /// The low half of the calling thread's pthread_self.
    pub thread: u32,
    /// Address of the CUDART table.
    pub runtime_table: u64,
    /// Address of the INTEGRITY table.
    pub integrity_table: u64,
    /// Address of the function in the INTEGRITY table's slot 1.
    pub integrity_function: u64,
    /// The caller's clock, in seconds since 1970.
    pub seconds: u64,
}

/// The 16 bytes that the runtime expects.
///
/// # Errors
/// What a device's PCI attribute answers where it has none.
pub fn answer(question: &Question, devices: &[DeviceInfo]) -> CuResult<[u8; 16]> {
    match question.version % 10 {
        0 => return Ok(FIXED_0),
        1 => return Ok(FIXED_1),
        _ => {}
    }
    // The key is exactly as long as HMAC's block, so it is used as it is.
    let mut mac = Hmac::<Md2>::new(&KEY.into());
    mac.update(&question.driver_version.to_le_bytes());
    mac.update(&question.version.to_le_bytes());
    mac.update(&question.pid.to_le_bytes());
    mac.update(&question.thread.to_le_bytes());
    mac.update(&question.runtime_table.to_le_bytes());
    mac.update(&question.integrity_table.to_le_bytes());
    mac.update(&question.integrity_function.to_le_bytes());
    mac.update(&question.seconds.to_le_bytes());
    for device in devices {
        mac.update(&device.uuid);
        for number in [PCI_DOMAIN_ID, PCI_BUS_ID, PCI_DEVICE_ID] {
            mac.update(&device.attribute(number)?.to_le_bytes());
        }
    }
    Ok(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use cuda_api::CUresult;
    use md2::Digest;

    use super::*;

    const QUESTION: Question = Question {
        driver_version: 13000,
        version: 13002,
        pid: 4242,
        thread: 0xdead_beef,
        runtime_table: 0x7f00_0000_1000,
        integrity_table: 0x7f00_0000_2000,
        integrity_function: 0x7f00_0000_3000,
        seconds: 1_795_408_034,
    };

    fn device(uuid: [u8; 16], domain: i32, bus: i32, device: i32) -> DeviceInfo {
        let mut attributes = vec![Err(CUresult::INVALID_VALUE); 148];
        for (number, value) in [(PCI_DOMAIN_ID, domain), (PCI_BUS_ID, bus), (PCI_DEVICE_ID, device)] {
            attributes[usize::try_from(number).unwrap()] = Ok(value);
        }
        DeviceInfo { name: String::new(), uuid, total_memory_bytes: 0, attributes, links: vec![] }
    }

    fn bytes(hex: &str) -> [u8; 16] {
        u128::from_str_radix(hex, 16).unwrap().to_be_bytes()
    }

    fn first() -> DeviceInfo {
        device(bytes("66855d6af07d72bda2506c13da90fcc0"), 0, 0, 6)
    }

    fn second() -> DeviceInfo {
        device(bytes("000102030405060708090a0b0c0d0e0f"), 1, 0x81, 31)
    }

    #[test]
    fn md2_is_that_of_rfc_1319() {
        for (text, digest) in [
            ("", "8350e5a3e24c153df2275c9f80692773"),
            ("a", "32ec01ec4a6dac72c0ab96fb34c0b5d1"),
            ("abc", "da853b0d3f88d99b30283a69e6ded6bb"),
            ("message digest", "ab4f496bfb2a530b219ff33031fe06b0"),
            ("abcdefghijklmnopqrstuvwxyz", "4e8ddff3650292ab5a4108c3aa47940b"),
            (
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
                "da33def2a42df13975352846c30338cd",
            ),
            (&"1234567890".repeat(8), "d5976f79d83d3a0dc9806c3c66f3efd8"),
        ] {
            assert_eq!(<[u8; 16]>::from(Md2::digest(text)), bytes(digest), "{text}");
        }
    }

    #[test]
    fn hmac_takes_the_key_for_a_whole_block() {
        // Two passes by hand over blocks of 16 bytes.
        let pad = |with: u8| KEY.map(|b| b ^ with).to_vec();
        let inner = Md2::digest([pad(0x36), b"message".to_vec()].concat());
        let outer = Md2::digest([pad(0x5c), inner.to_vec()].concat());
        let mut mac = Hmac::<Md2>::new(&KEY.into());
        mac.update(b"message");
        assert_eq!(mac.finalize().into_bytes(), outer);
    }

    #[test]
    fn the_answer_is_the_independently_computed_one() {
        assert_eq!(answer(&QUESTION, &[]), Ok(bytes("7fb39716cf1bd43952e264448dfc77a7")));
        assert_eq!(answer(&QUESTION, &[first()]), Ok(bytes("2eab32afb0cac6f0d84a3ce0d8e0c87d")));
        assert_eq!(answer(&QUESTION, &[first(), second()]), Ok(bytes("465e2c34247e0850f6c5980f78dab7a4")));
    }

    #[test]
    fn the_first_two_questions_have_fixed_answers() {
        let ask = |version| answer(&Question { version, ..QUESTION }, &[first()]);
        assert_eq!(ask(13000), Ok(bytes("5c67cb031c184133e8d14c1faa83d38e")));
        assert_eq!(ask(11081), Ok(bytes("5c67cb031c184118e8d14c1faa83d38e")));
        assert_ne!(ask(11082), ask(11083));
    }

    #[test]
    fn a_device_without_a_pci_address_gives_its_error() {
        let mut device = first();
        device.attributes[33] = Err(CUresult::UNKNOWN);
        assert_eq!(answer(&QUESTION, &[device]), Err(CUresult::UNKNOWN));
    }
}

//! One look at the devices: which of them are asked for, and what they answer during it.

use std::cell::{Cell, OnceCell};

use crate::failure::Failure;
use crate::nvml::{Answer, Code, Memory, Number, Nvml, Process, Text};

/// A look at the devices, begun at one time.
pub struct Pass<'a> {
    pub nvml: &'a dyn Nvml,
    /// When it was begun.
    pub now: jiff::Zoned,
    /// The devices that are asked for, in the order of their indices.
    pub gpus: Vec<Gpu<'a>>,
    /// How many devices there are.
    pub count: u32,
}

/// A device during a look. Its memory is asked for once, so that total, used and free are of one moment.
pub struct Gpu<'a> {
    nvml: &'a dyn Nvml,
    /// Its index.
    pub index: u32,
    memory: OnceCell<Answer<Memory>>,
    lost: Cell<bool>,
}

impl<'a> Pass<'a> {
    /// Begins a look at the devices that `ids` names (by index, UUID or PCI address), or at all of them.
    ///
    /// # Errors
    /// Where NVML fails, or there is no such device.
    pub fn begin(nvml: &'a dyn Nvml, ids: &[String], now: jiff::Zoned) -> Result<Self, Failure> {
        let count = nvml.count()?;
        let gpu = |index| Gpu { nvml, index, memory: OnceCell::new(), lost: Cell::new(false) };
        let mut gpus: Vec<Gpu<'a>> = (0..count).map(gpu).collect();
        if !ids.is_empty() {
            let mut wanted = vec![false; gpus.len()];
            for id in ids {
                let found = gpus.iter().position(|gpu| gpu.is_named(id));
                let Some(flag) = found.and_then(|at| wanted.get_mut(at)) else {
                    return Err(Failure::no_such_device(id));
                };
                *flag = true;
            }
            let mut wanted = wanted.into_iter();
            gpus.retain(|_| wanted.next() == Some(true));
        }
        if gpus.is_empty() {
            return Err(Failure::no_devices());
        }
        Ok(Self { nvml, now, gpus, count })
    }

    /// A device was lost during the look: what was shown of it is not what it does.
    ///
    /// # Errors
    /// Then.
    pub fn end(&self) -> Result<(), Failure> {
        if self.gpus.iter().any(|gpu| gpu.lost.get()) { Err(Code::GPU_IS_LOST.into()) } else { Ok(()) }
    }
}

impl Gpu<'_> {
    fn note<T>(&self, answer: Answer<T>) -> Answer<T> {
        if matches!(answer, Err(Code::GPU_IS_LOST)) {
            self.lost.set(true);
        }
        answer
    }

    /// A number.
    pub fn number(&self, what: Number) -> Answer<u64> {
        self.note(self.nvml.number(self.index, what))
    }

    /// A text.
    pub fn text(&self, what: Text) -> Answer<String> {
        self.note(self.nvml.text(self.index, what))
    }

    /// Its memory.
    pub fn memory(&self) -> Answer<Memory> {
        *self.memory.get_or_init(|| self.note(self.nvml.memory(self.index)))
    }

    /// The processes on it.
    pub fn processes(&self) -> Answer<Vec<Process>> {
        self.note(self.nvml.processes(self.index))
    }

    fn is_named(&self, id: &str) -> bool {
        if !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) {
            return id.parse() == Ok(self.index);
        }
        let is = |text: Answer<String>, same: fn(&str, &str) -> bool| text.is_ok_and(|text| same(&text, id));
        is(self.text(Text::Uuid), |uuid, id| uuid.eq_ignore_ascii_case(id))
            || is(self.text(Text::BusId), same_address)
    }
}

/// Two PCI addresses name the same: a domain may have any number of digits, or be left out if it is 0.
fn same_address(one: &str, other: &str) -> bool {
    fn parts(address: &str) -> Option<(u32, u32, u32, u32)> {
        let number = |text: &str| u32::from_str_radix(text, 16).ok();
        let (rest, function) = address.split_once('.')?;
        let (rest, device) = rest.rsplit_once(':')?;
        let (domain, bus) = rest.split_once(':').unwrap_or(("0", rest));
        Some((number(domain)?, number(bus)?, number(device)?, number(function)?))
    }
    parts(one).is_some() && parts(one) == parts(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvml::recorded::{Recorded, h100};

    /// Two devices.
    pub fn two() -> Recorded {
        let mut machine = h100();
        let mut second = machine.devices[0].clone();
        second.texts.insert(Text::Uuid, "GPU-second".to_owned());
        second.texts.insert(Text::BusId, "00000000:C1:00.0".to_owned());
        machine.devices.push(second);
        machine
    }

    #[test]
    fn devices_are_chosen_by_index_uuid_or_address() {
        let machine = two();
        let chosen = |ids: &[&str]| {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            let pass = Pass::begin(&machine, &ids, jiff::Zoned::now());
            pass.map(|pass| pass.gpus.iter().map(|gpu| gpu.index).collect::<Vec<_>>()).map_err(|e| e.status)
        };
        assert_eq!(chosen(&[]), Ok(vec![0, 1]));
        assert_eq!(chosen(&["1"]), Ok(vec![1]));
        assert_eq!(chosen(&["1", "0", "1"]), Ok(vec![0, 1]));
        assert_eq!(chosen(&["gpu-SECOND"]), Ok(vec![1]));
        assert_eq!(chosen(&["0000:c1:00.0"]), Ok(vec![1]));
        assert_eq!(chosen(&["c1:00.0"]), Ok(vec![1]));
        for wrong in ["2", "GPU-third", "0000:c1:00.1", "0001:c1:00.0", "", "-1"] {
            assert_eq!(chosen(&[wrong]), Err(6), "{wrong}");
        }
    }

    #[test]
    fn a_device_that_is_lost_is_not_a_device_without_numbers() {
        let mut machine = two();
        machine.devices[1].numbers.insert(Number::PowerMw, Err(Code::GPU_IS_LOST));
        let pass = Pass::begin(&machine, &[], jiff::Zoned::now()).unwrap();
        assert_eq!(pass.gpus[0].number(Number::FanPercent), Err(Code::NOT_SUPPORTED));
        assert!(pass.end().is_ok());
        assert!(pass.gpus[1].number(Number::PowerMw).is_err());
        assert_eq!(pass.end().unwrap_err().status, 15);
    }
}

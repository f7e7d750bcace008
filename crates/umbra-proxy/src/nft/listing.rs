//! What the kernel lists of a set, read. Pure.
//!
//! Not by the library's own types: for each element of a message they write the whole message out as text, in case that
//! it is wrong, which makes a set of 80,000 take half a minute.

use netlink_packet_core::{DecodeError, NlaBuffer, NlasIterator, Parseable};
use netlink_packet_netfilter::nftables::SetElementAttribute;

use super::table::Element;

/// `struct nfgenmsg`, before the attributes.
const FAMILY_HEADER: usize = 4;
/// `NFTA_SET_ELEM_LIST_ELEMENTS`
const LIST: u16 = 3;
/// `NFTA_LIST_ELEM`
const ELEMENT: u16 = 1;

/// The elements in a message's payload.
pub(super) fn elements_of(payload: &[u8]) -> Result<Vec<Element>, DecodeError> {
    let attributes = payload.get(FAMILY_HEADER..).unwrap_or_default();
    let mut elements = Vec::new();
    for list in NlasIterator::new(attributes) {
        let list = list?;
        if list.kind() != LIST {
            continue;
        }
        for element in NlasIterator::new(list.value()) {
            let element = element?;
            if element.kind() == ELEMENT {
                elements.push(element_of(&element)?);
            }
        }
    }
    Ok(elements)
}

fn element_of(element: &NlaBuffer<&[u8]>) -> Result<Element, DecodeError> {
    NlasIterator::new(element.value()).map(|attribute| SetElementAttribute::parse(&attribute?)).collect()
}

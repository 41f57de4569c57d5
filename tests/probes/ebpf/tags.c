/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Puts VLAN tags on what leaves a device, and takes them off what arrives: a tagged network where the kernel has no VLAN
 * devices. TAGS is 1 (802.1Q) or 2 (802.1ad around it). Hook: tc classifier. */

int put_on(struct __sk_buff *skb)
{
    bpf_skb_vlan_push(skb, bpf_htons(0x8100), 10);
    if (TAGS == 2)
        bpf_skb_vlan_push(skb, bpf_htons(0x88A8), 20);
    return 0;
}

int take_off(struct __sk_buff *skb)
{
    bpf_skb_vlan_pop(skb);
    if (TAGS == 2)
        bpf_skb_vlan_pop(skb);
    return 0;
}

/*
 * Sends COUNT packets of SIZE bytes through a virtio network card, DEPTH at a time. With ECHO each is an ICMP echo
 * request to 10.99.0.1, and the next one is sent when its answer is there; without, nobody takes them.
 */
#include "virtio.h"

#define RX_QUEUE 0x200000
#define TX_QUEUE 0x210000
#define RX_DATA 0x400000
#define TX_DATA 0x500000
#define BUFFER 2048
#define HEADER 12
#define RX_BUFFERS 128

static struct queue rx, tx;

static u16 checksum(const u8 *bytes, u32 count)
{
	u32 sum = 0;
	for (u32 i = 0; i < count; i += 2)
		sum += (u32)bytes[i] << 8 | bytes[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static void put16(u8 *at, u16 value)
{
	at[0] = value >> 8;
	at[1] = value;
}

/* 02:00:00:00:00:02 at 10.99.0.2 to 02:00:00:00:00:01 at 10.99.0.1. */
static void make_packet(u8 *packet)
{
	static const u8 ethernet[] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2 };
	static const u8 ip[] = { 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 99, 0, 2, 10, 99, 0, 1, 8 };
	for (u32 i = 0; i < sizeof ethernet; i++)
		packet[i] = ethernet[i];
	/* A local experimental protocol (IEEE 802), for which nobody listens. */
	put16(packet + 12, ECHO ? 0x0800 : 0x88b5);
	for (u32 i = 0; i < sizeof ip; i++)
		packet[14 + i] = ip[i];
	put16(packet + 16, SIZE - 14);
	put16(packet + 24, checksum(packet + 14, 20));
	put16(packet + 36, checksum(packet + 34, SIZE - 34));
}

static int is_answer(const volatile u8 *packet)
{
	return packet[12] == 8 && packet[13] == 0 && packet[23] == 1 && packet[34] == 0;
}

void start(void)
{
	find_device(0x1041);
	negotiate(0);
	start_queue(&rx, 0, 256, RX_QUEUE);
	start_queue(&tx, 1, 256, TX_QUEUE);
	common->device_status = 15;
	for (u32 slot = 0; slot < DEPTH; slot++) {
		u32 at = TX_DATA + slot * BUFFER;
		make_packet((u8 *)at + HEADER);
		tx.desc[slot] = (struct desc){ at, 0, HEADER + SIZE, 0, 0 };
	}
	for (u32 slot = 0; slot < RX_BUFFERS; slot++) {
		rx.desc[slot] = (struct desc){ RX_DATA + slot * BUFFER, 0, BUFFER, DESC_WRITE, 0 };
		add(&rx, slot);
	}
	publish(&rx);
	put("<", 1);
	u64 from = rdtsc();
	/* Packets that may be sent: answers that came, or packets that are gone. */
	u32 sent = 0, gone = 0, answered = 0;
	u8 free[DEPTH];
	u32 free_count = 0;
	for (u32 slot = 0; slot < DEPTH; slot++)
		free[free_count++] = slot;
	while ((ECHO ? answered : gone) < COUNT) {
		while (free_count && sent < COUNT && (!ECHO || sent - answered < DEPTH)) {
			add(&tx, free[--free_count]);
			sent++;
		}
		if (tx.next != tx.told)
			publish(&tx);
		for (u16 index = tx.used->index; tx.seen != index; tx.seen++, gone++) {
			barrier();
			free[free_count++] = tx.used->ring[tx.seen & (tx.size - 1)].id;
		}
		for (u16 index = rx.used->index; rx.seen != index; rx.seen++) {
			barrier();
			u32 slot = rx.used->ring[rx.seen & (rx.size - 1)].id;
			if (ECHO && is_answer((volatile u8 *)RX_DATA + slot * BUFFER + HEADER))
				answered++;
			add(&rx, slot);
		}
		if (rx.next != rx.told)
			publish(&rx);
		__asm__ volatile("pause");
	}
	report(rdtsc() - from, tx.notifications + rx.notifications);
}

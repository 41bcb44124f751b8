/*
 * Reads or writes a virtio disk: COUNT requests of SIZE bytes, DEPTH at a time, at RANDOM places or in a row, in its
 * first BLOCKS blocks of SIZE bytes.
 */
#include "virtio.h"

#define QUEUE 0x200000
#define HEADERS 0x210000
#define STATUSES 0x218000
#define DATA 0x400000

struct header {
	u32 type, reserved;
	u64 sector;
};

static struct queue queue;
/* The block before the first, or what the generator starts from. */
static u32 block = RANDOM ? 0x12345678 : -1;

static u32 next_block(void)
{
	if (!RANDOM)
		return ++block % BLOCKS;
	/* xorshift32 */
	block ^= block << 13;
	block ^= block >> 17;
	block ^= block << 5;
	return block % BLOCKS;
}

static void submit(u32 slot)
{
	struct header *header = (struct header *)HEADERS + slot;
	header->sector = (u64)next_block() * (SIZE / 512);
	((volatile u8 *)STATUSES)[slot] = 0xff;
	add(&queue, slot * 3);
}

void start(void)
{
	find_device(0x1042);
	negotiate(0);
	start_queue(&queue, 0, 128, QUEUE);
	for (u32 slot = 0; slot < DEPTH; slot++) {
		struct header *header = (struct header *)HEADERS + slot;
		struct desc *desc = queue.desc + slot * 3;
		header->type = WRITE;
		desc[0] = (struct desc){ (u32)header, 0, 16, DESC_NEXT, slot * 3 + 1 };
		desc[1] = (struct desc){ DATA + slot * SIZE, 0, SIZE, DESC_NEXT | (WRITE ? 0 : DESC_WRITE), slot * 3 + 2 };
		desc[2] = (struct desc){ STATUSES + slot, 0, 1, DESC_WRITE, 0 };
	}
	common->device_status = 15;
	put("<", 1);
	u64 from = rdtsc();
	u32 sent = 0, done = 0;
	for (; sent < DEPTH; sent++)
		submit(sent);
	publish(&queue);
	while (done < COUNT) {
		u16 index = queue.used->index;
		if (index == queue.seen) {
			__asm__ volatile("pause");
			continue;
		}
		barrier();
		for (; queue.seen != index; queue.seen++, done++) {
			u32 slot = queue.used->ring[queue.seen & (queue.size - 1)].id / 3;
			if (((volatile u8 *)STATUSES)[slot])
				fail('S');
			if (sent < COUNT) {
				submit(slot);
				sent++;
			}
		}
		if (queue.next != queue.told)
			publish(&queue);
	}
	report(rdtsc() - from, queue.notifications);
}

/*
 * The little that a virtio driver in ring 3 needs: PCI configuration through 0xcf8, modern virtio (1.2, sections
 * 2.7 and 4.1), split rings that are polled. Physical addresses are its own addresses.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define COM1 0x3f8
#define DEBUG_EXIT 0xf4
/* A place below the chipset's own, above all memory and windows that a firmware hands out on these small machines. */
#define BAR_ADDRESS 0xfd000000u

static inline void outb(u16 port, u8 value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static inline void outl(u16 port, u32 value) { __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }
static inline u32 inl(u16 port)
{
	u32 value;
	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}
static inline u64 rdtsc(void)
{
	u64 value;
	__asm__ volatile("rdtsc" : "=A"(value));
	return value;
}
#define barrier() __asm__ volatile("" : : : "memory")
/* Stores before are seen before loads after. */
#define full_barrier() __asm__ volatile("lock; addl $0, (%%esp)" : : : "memory")

static void put(const void *bytes, u32 count)
{
	for (u32 i = 0; i < count; i++)
		outb(COM1, ((const u8 *)bytes)[i]);
}

static void __attribute__((noreturn)) end(void)
{
	outb(DEBUG_EXIT, 0);
	for (;;)
		;
}

static void __attribute__((noreturn)) fail(char why)
{
	put("!", 1);
	put(&why, 1);
	end();
}

static u32 config_read(u32 device, u32 offset)
{
	outl(0xcf8, 0x80000000u | device << 11 | (offset & 0xfc));
	return inl(0xcfc);
}
static void config_write(u32 device, u32 offset, u32 value)
{
	outl(0xcf8, 0x80000000u | device << 11 | (offset & 0xfc));
	outl(0xcfc, value);
}

struct common_cfg {
	volatile u32 device_feature_select, device_feature, driver_feature_select, driver_feature;
	volatile u16 config_msix_vector, num_queues;
	volatile u8 device_status, config_generation;
	volatile u16 queue_select, queue_size, queue_msix_vector, queue_enable, queue_notify_off;
	volatile u32 queue_desc[2], queue_driver[2], queue_device[2];
};

struct desc {
	u32 address, high;
	u32 length;
	u16 flags, next;
};
#define DESC_NEXT 1
#define DESC_WRITE 2

struct avail {
	u16 flags;
	volatile u16 index;
	u16 ring[256 + 1]; /* and the event index behind the last */
};
struct used {
	u16 flags;
	volatile u16 index;
	struct { u32 id, length; } ring[256 + 1];
};

struct queue {
	struct desc *desc;
	struct avail *avail;
	struct used *used;
	volatile u16 *notify;
	u16 number, size, next, seen, told;
	u32 notifications;
};

static struct common_cfg *common;
static u32 notify_base, notify_multiplier;

#define FEATURE_EVENT_IDX (1u << 29)

/* Finds the function with this device id on bus 0, gives its BAR the address above, and reads its capabilities. */
static void find_device(u16 id)
{
	for (u32 device = 0; device < 32; device++) {
		if (config_read(device, 0) != ((u32)id << 16 | 0x1af4))
			continue;
		config_write(device, 4, 0);
		u32 bar = 0;
		u32 capability = config_read(device, 0x34) & 0xfc;
		while (capability) {
			u32 first = config_read(device, capability);
			if ((first & 0xff) == 9) {
				u32 where = config_read(device, capability + 4) & 0xff;
				u32 offset = config_read(device, capability + 8);
				u8 type = first >> 24;
				if (type == 1 || type == 2)
					bar = where;
				if (type == 1)
					common = (struct common_cfg *)(BAR_ADDRESS + offset);
				if (type == 2) {
					notify_base = BAR_ADDRESS + offset;
					notify_multiplier = config_read(device, capability + 16);
				}
			}
			capability = first >> 8 & 0xfc;
		}
		if (!common || !notify_base)
			fail('C');
		u32 at = 0x10 + bar * 4;
		if ((config_read(device, at) & 6) == 4)
			config_write(device, at + 4, 0);
		config_write(device, at, BAR_ADDRESS);
		config_write(device, 4, 6); /* memory space, bus master */
		return;
	}
	fail('D');
}

/* Resets the device and accepts VIRTIO_F_VERSION_1, EVENT_IDX and what is asked for. */
static void negotiate(u32 features)
{
	common->device_status = 0;
	while (common->device_status)
		;
	common->device_status = 1;
	common->device_status = 3;
	common->driver_feature_select = 0;
	common->driver_feature = FEATURE_EVENT_IDX | features;
	common->driver_feature_select = 1;
	common->driver_feature = 1;
	common->device_status = 11;
	if (!(common->device_status & 8))
		fail('F');
}

/* Sets a queue up in 16 KiB of zeroed memory at `address`. */
static void start_queue(struct queue *queue, u16 number, u16 size, u32 address)
{
	common->queue_select = number;
	if (common->queue_size < size)
		fail('Q');
	common->queue_size = size;
	queue->number = number;
	queue->size = size;
	queue->desc = (struct desc *)address;
	queue->avail = (struct avail *)(address + 0x2000);
	queue->used = (struct used *)(address + 0x3000);
	queue->notify = (volatile u16 *)(notify_base + common->queue_notify_off * notify_multiplier);
	common->queue_desc[0] = address;
	common->queue_desc[1] = 0;
	common->queue_driver[0] = address + 0x2000;
	common->queue_driver[1] = 0;
	common->queue_device[0] = address + 0x3000;
	common->queue_device[1] = 0;
	common->queue_enable = 1;
	/* Polled: no interrupt before the index has gone all the way round. */
	queue->avail->flags = 1;
	queue->avail->ring[size] = 0x8000;
}

static inline void add(struct queue *queue, u16 head)
{
	queue->avail->ring[queue->next++ & (queue->size - 1)] = head;
}

/* Publishes what was added, and tells the device if it asks to be told (2.7.10). */
static void publish(struct queue *queue)
{
	u16 before = queue->told;
	barrier();
	queue->avail->index = queue->next;
	queue->told = queue->next;
	full_barrier();
	u16 event = *(volatile u16 *)&queue->used->ring[queue->size];
	if ((u16)(queue->next - event - 1) < (u16)(queue->next - before)) {
		*queue->notify = queue->number;
		queue->notifications++;
	}
	/* No interrupt soon. */
	queue->avail->ring[queue->size] = queue->seen - 1;
}

/* '>' , ticks of the time stamp counter, count of notifications. */
static void __attribute__((noreturn)) report(u64 ticks, u32 notifications)
{
	put(">", 1);
	put(&ticks, 8);
	put(&notifications, 4);
	/* Time for the measuring program to look at what was used before the process is gone. */
	for (u64 from = rdtsc(); rdtsc() - from < 500000000;)
		__asm__ volatile("pause");
	end();
}

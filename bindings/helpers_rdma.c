// SPDX-License-Identifier: GPL-2.0
/* Wrappers for kapi/lock.rs and ib/verbs/; included by helpers.c. */

void smc_rs_helper_spin_lock_bh(spinlock_t *lock)
{
	spin_lock_bh(lock);
}

void smc_rs_helper_spin_unlock_bh(spinlock_t *lock)
{
	spin_unlock_bh(lock);
}

int smc_rs_helper_spin_trylock_bh(spinlock_t *lock)
{
	return spin_trylock_bh(lock);
}

/* Out of line in the kernel is only what follows the test of its state. */
void smc_rs_helper_tasklet_schedule(struct tasklet_struct *tasklet)
{
	tasklet_schedule(tasklet);
}

/* Devices, ports and network devices. */

bool smc_rs_helper_rdma_protocol_iwarp(const struct ib_device *device, u32 port)
{
	return rdma_protocol_iwarp(device, port);
}

bool smc_rs_helper_rdma_protocol_roce_eth_encap(const struct ib_device *device, u32 port)
{
	return rdma_protocol_roce_eth_encap(device, port);
}

bool smc_rs_helper_rdma_protocol_roce_udp_encap(const struct ib_device *device, u32 port)
{
	return rdma_protocol_roce_udp_encap(device, port);
}

void smc_rs_helper_init_ib_event_handler(struct ib_event_handler *handler,
					 struct ib_device *device,
					 void (*func)(struct ib_event_handler *, struct ib_event *))
{
	INIT_IB_EVENT_HANDLER(handler, device, func);
}

void smc_rs_helper_dev_put(struct net_device *dev)
{
	dev_put(dev);
}

/* Index of the network device behind a GID; 0 if it has none. */
int smc_rs_helper_gid_attr_ifindex(const struct ib_gid_attr *attr)
{
	struct net_device *dev;
	int ifindex = 0;

	rcu_read_lock();
	dev = rdma_read_gid_attr_ndev_rcu(attr);
	if (!IS_ERR(dev))
		ifindex = dev->ifindex;
	rcu_read_unlock();
	return ifindex;
}

/* Queue pairs and completion queues. */

int smc_rs_helper_ib_post_send(struct ib_qp *qp, const struct ib_send_wr *wr,
			       const struct ib_send_wr **bad_wr)
{
	return ib_post_send(qp, wr, bad_wr);
}

int smc_rs_helper_ib_post_recv(struct ib_qp *qp, const struct ib_recv_wr *wr,
			       const struct ib_recv_wr **bad_wr)
{
	return ib_post_recv(qp, wr, bad_wr);
}

int smc_rs_helper_ib_poll_cq(struct ib_cq *cq, int num_entries, struct ib_wc *wc)
{
	return ib_poll_cq(cq, num_entries, wc);
}

int smc_rs_helper_ib_req_notify_cq(struct ib_cq *cq, int flags)
{
	return ib_req_notify_cq(cq, flags);
}

/* Memory and its mapping. */

void *smc_rs_helper_page_address(struct page *page)
{
	return page_address(page);
}

/* Zeroed; fails silently and early rather than to have others killed for it. */
void *smc_rs_helper_vmalloc_buffer(unsigned long size)
{
	return __vmalloc(size, GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN | __GFP_NORETRY);
}

void smc_rs_helper_sg_set_page(struct scatterlist *sg, struct page *page, unsigned int len,
			       unsigned int offset)
{
	sg_set_page(sg, page, len, offset);
}

struct scatterlist *smc_rs_helper_sg_next(struct scatterlist *sg)
{
	return sg_next(sg);
}

u64 smc_rs_helper_sg_dma_address(struct scatterlist *sg)
{
	return sg_dma_address(sg);
}

unsigned int smc_rs_helper_sg_dma_len(struct scatterlist *sg)
{
	return sg_dma_len(sg);
}

int smc_rs_helper_ib_dma_map_sg(struct ib_device *dev, struct scatterlist *sg, int nents,
				enum dma_data_direction direction)
{
	return ib_dma_map_sg(dev, sg, nents, direction);
}

void smc_rs_helper_ib_dma_unmap_sg(struct ib_device *dev, struct scatterlist *sg, int nents,
				   enum dma_data_direction direction)
{
	ib_dma_unmap_sg(dev, sg, nents, direction);
}

bool smc_rs_helper_ib_dma_need_sync(struct ib_device *dev, u64 addr)
{
	return !ib_uses_virt_dma(dev) && dma_need_sync(dev->dma_device, addr);
}

void smc_rs_helper_ib_dma_sync_single_for_cpu(struct ib_device *dev, u64 addr, size_t size,
					      enum dma_data_direction direction)
{
	ib_dma_sync_single_for_cpu(dev, addr, size, direction);
}

void smc_rs_helper_ib_dma_sync_single_for_device(struct ib_device *dev, u64 addr, size_t size,
						 enum dma_data_direction direction)
{
	ib_dma_sync_single_for_device(dev, addr, size, direction);
}

/* Memory that a peer may change at any time is accessed by C only. */

void smc_rs_helper_buffer_clear(void *to, size_t len)
{
	memset(to, 0, len);
}

void smc_rs_helper_buffer_copy(void *to, const void *from, size_t len)
{
	memcpy(to, from, len);
}

bool smc_rs_helper_ib_device_is_rxe(const struct ib_device *device)
{
	return device->ops.driver_id == RDMA_DRIVER_RXE;
}

bool smc_rs_helper_ib_device_is_erdma(const struct ib_device *device)
{
	return device->ops.driver_id == RDMA_DRIVER_ERDMA;
}

/* The PCI function that a device is on, or NULL; some are on an auxiliary bus in between. */
struct pci_dev *smc_rs_helper_ib_device_pci(const struct ib_device *device)
{
	struct device *dev;

	for (dev = device->dev.parent; dev; dev = dev->parent)
		if (dev_is_pci(dev))
			return to_pci_dev(dev);
	return NULL;
}

const char *smc_rs_helper_pci_name(const struct pci_dev *pdev)
{
	return pci_name(pdev);
}

u16 smc_rs_helper_pci_vendor(const struct pci_dev *pdev)
{
	return pdev->vendor;
}

u16 smc_rs_helper_pci_device(const struct pci_dev *pdev)
{
	return pdev->device;
}

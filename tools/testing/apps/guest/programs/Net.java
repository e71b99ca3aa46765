// Java's sockets and channels against each other: Net server ADDRESS on one host, Net client ADDRESS on the other.
//
// The client prints NAME <tab> RESULT.
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.ConnectException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

public class Net {
    static final int PATIENCE = 60_000;
    static String host;

    interface Body {
        void run() throws Exception;
    }

    static byte[] pattern(int length) {
        byte[] all = new byte[length];
        int state = 1463534242;
        for (int i = 0; i < length; i++) {
            state ^= state << 13;
            state ^= state >>> 17;
            state ^= state << 5;
            all[i] = (byte) state;
        }
        return all;
    }

    /** Sends back what comes, and ends when the other side has. */
    static void serve() throws IOException {
        ServerSocket listener = new ServerSocket(9002, 100, InetAddress.getByName(host));
        while (true) {
            Socket socket = listener.accept();
            Thread thread = new Thread(() -> {
                try (socket) {
                    socket.getInputStream().transferTo(socket.getOutputStream());
                } catch (IOException broken) {
                    // The client says what went wrong.
                }
            });
            thread.setDaemon(true);
            thread.start();
        }
    }

    static Socket connect() throws IOException {
        Socket socket = new Socket();
        socket.connect(new InetSocketAddress(host, 9002), PATIENCE);
        socket.setSoTimeout(PATIENCE);
        return socket;
    }

    static void echo(int length) throws Exception {
        byte[] data = pattern(length);
        try (Socket socket = connect()) {
            Thread writer = new Thread(() -> {
                try {
                    OutputStream out = socket.getOutputStream();
                    out.write(data);
                    socket.shutdownOutput();
                } catch (IOException broken) {
                    // Then less comes back.
                }
            });
            writer.start();
            byte[] back = socket.getInputStream().readAllBytes();
            writer.join();
            same(data, back);
        }
    }

    static void same(byte[] expected, byte[] got) throws IOException {
        if (!Arrays.equals(expected, got)) {
            throw new IOException(got.length + " bytes came back of " + expected.length + ", or others");
        }
    }

    static void fiftyAtOnce() throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(50);
        List<Future<Void>> all = new ArrayList<>();
        for (int i = 0; i < 50; i++) {
            int length = 20_000 + i;
            Callable<Void> one = () -> {
                echo(length);
                return null;
            };
            all.add(threads.submit(one));
        }
        threads.shutdown();
        for (Future<Void> one : all) {
            one.get();
        }
    }

    static void timeout() throws Exception {
        try (Socket socket = connect()) {
            socket.setSoTimeout(100);
            try {
                socket.getInputStream().read();
            } catch (SocketTimeoutException expected) {
                return;
            }
        }
        throw new IOException("a read without data ended");
    }

    static void closeWakesReader() throws Exception {
        Socket socket = connect();
        Thread closer = new Thread(() -> {
            try {
                Thread.sleep(200);
                socket.close();
            } catch (Exception failed) {
                // Then the read never ends, which the case's limit shows.
            }
        });
        closer.start();
        try (InputStream in = socket.getInputStream()) {
            in.read();
        } catch (IOException expected) {
            return;
        }
        throw new IOException("a read went on after close");
    }

    static void refused() throws Exception {
        try (Socket socket = new Socket()) {
            socket.connect(new InetSocketAddress(host, 9999), PATIENCE);
        } catch (ConnectException expected) {
            return;
        }
        throw new IOException("nobody listens, but connect succeeds");
    }

    static void urgent() throws Exception {
        try (Socket socket = connect()) {
            socket.setOOBInline(true);
            socket.getOutputStream().write('a');
            if (socket.getInputStream().read() != 'a') {
                throw new IOException("another byte");
            }
            socket.sendUrgentData('b');
        }
    }

    static void options() throws Exception {
        try (Socket socket = connect()) {
            socket.setTcpNoDelay(true);
            socket.setKeepAlive(true);
            socket.setSoLinger(true, 5);
            socket.setTrafficClass(0x10);
            if (!socket.getTcpNoDelay() || !socket.getKeepAlive() || socket.getSoLinger() != 5) {
                throw new IOException("an option was not kept");
            }
        }
    }

    /** One thread, a selector, twenty connections. */
    static void channels() throws Exception {
        byte[] data = pattern(50_000);
        try (Selector selector = Selector.open()) {
            int open = 20;
            for (int i = 0; i < open; i++) {
                SocketChannel channel = SocketChannel.open();
                channel.configureBlocking(false);
                channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
                channel.connect(new InetSocketAddress(host, 9002));
                channel.register(selector, SelectionKey.OP_CONNECT, new Object[] {ByteBuffer.wrap(data), new ByteArrayOutputStream()});
            }
            ByteBuffer buffer = ByteBuffer.allocateDirect(8192);
            while (open > 0) {
                if (selector.select(PATIENCE) == 0) {
                    throw new IOException("nothing happened for a minute");
                }
                for (SelectionKey key : selector.selectedKeys()) {
                    SocketChannel channel = (SocketChannel) key.channel();
                    Object[] state = (Object[]) key.attachment();
                    ByteBuffer out = (ByteBuffer) state[0];
                    ByteArrayOutputStream in = (ByteArrayOutputStream) state[1];
                    if (key.isConnectable() && channel.finishConnect()) {
                        key.interestOps(SelectionKey.OP_READ | SelectionKey.OP_WRITE);
                    }
                    if (key.isWritable()) {
                        channel.write(out);
                        if (!out.hasRemaining()) {
                            channel.shutdownOutput();
                            key.interestOps(SelectionKey.OP_READ);
                        }
                    }
                    if (key.isReadable()) {
                        buffer.clear();
                        int got = channel.read(buffer);
                        if (got < 0) {
                            same(data, in.toByteArray());
                            channel.close();
                            open--;
                        } else {
                            in.write(Arrays.copyOf(bytes(buffer), got));
                        }
                    }
                }
                selector.selectedKeys().clear();
            }
        }
    }

    static byte[] bytes(ByteBuffer buffer) {
        buffer.flip();
        byte[] all = new byte[buffer.remaining()];
        buffer.get(all);
        return all;
    }

    static void check(String name, Body body) {
        try {
            body.run();
            System.out.println(name + "\tok");
        } catch (Exception failure) {
            System.out.println(name + "\tfailed: " + failure);
        }
    }

    public static void main(String[] arguments) throws Exception {
        host = arguments[1];
        if (arguments[0].equals("server")) {
            serve();
        }
        check("echo", () -> echo(2_000_001));
        check("echo_of_nothing", () -> echo(0));
        check("fifty_at_once", Net::fiftyAtOnce);
        check("timeout", Net::timeout);
        check("close_wakes_reader", Net::closeWakesReader);
        check("refused", Net::refused);
        check("urgent", Net::urgent);
        check("options", Net::options);
        check("channels", Net::channels);
    }
}

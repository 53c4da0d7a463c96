import com.google.gson.JsonParser;
import com.tencentcloudapi.common.CommonClient;
import com.tencentcloudapi.common.Credential;
import com.tencentcloudapi.common.exception.TencentCloudSDKException;
import com.tencentcloudapi.common.profile.ClientProfile;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;

/**
 * The official Java SDK against a simulator of its own, whose clock it sets: java Attach.java HOST:PORT.
 *
 * <p>Prints a line for each check; the exit code is 0 only if all pass.
 */
public class Attach {
    static final String ID = "AKIDEXAMPLE";
    static final String KEY = "SECRETEXAMPLE";
    static final String PHONES = "[\"phone-java-1\",\"phone-java-é\"]";

    static String endpoint;
    static boolean failed;

    interface Call {
        String make() throws TencentCloudSDKException;
    }

    /** Makes one call; type is 1 to attach, 2 to detach. */
    static String switchSlaves(String id, String key, int type, String server) throws TencentCloudSDKException {
        ClientProfile profile = new ClientProfile();
        profile.getHttpProfile().setProtocol("http://");
        profile.getHttpProfile().setEndpoint(server);
        CommonClient client = new CommonClient("gs", "2019-11-18", new Credential(id, key), "ap-guangzhou", profile);
        String body = "{\"SessionId\":\"1326515201117065216\",\"Type\":" + type + ",\"SlaveInstanceIds\":" + PHONES + "}";
        return client.call("SwitchCloudPhoneMultipleStreamSessionSlaves", body);
    }

    static void report(String name, boolean ok, Object seen) {
        failed |= !ok;
        System.out.println((ok ? "ok: " : "FAILED: ") + name + ": " + seen);
    }

    static void succeeds(String name, int type) {
        try {
            String answer = switchSlaves(ID, KEY, type, endpoint);
            Object ids = JsonParser.parseString(answer).getAsJsonObject().getAsJsonObject("Response").get("SuccessInstanceIds");
            report(name, JsonParser.parseString(PHONES).equals(ids), answer);
        } catch (TencentCloudSDKException error) {
            report(name, false, error);
        }
    }

    static void isRefused(String name, String code, Call call) {
        try {
            report(name, false, call.make());
        } catch (TencentCloudSDKException error) {
            boolean ok = code.equals(error.getErrorCode()) && !error.getRequestId().isEmpty();
            report(name, ok, error.getClass().getSimpleName() + " " + error.getErrorCode() + " " + error.getMessage());
        }
    }

    /** Alters the body after it was signed, as something on the way might. Serves one connection; answers where it listens. */
    static String somethingThatChanges(String from, String to) throws IOException {
        ServerSocket listener = new ServerSocket(0, 1, InetAddress.getByName("127.0.0.1"));
        String[] address = endpoint.split(":");
        Thread thread = new Thread(() -> {
            try (listener; Socket client = listener.accept(); Socket server = new Socket(address[0], Integer.parseInt(address[1]))) {
                Thread back = new Thread(() -> copy(server, client, "", ""));
                back.setDaemon(true);
                back.start();
                copy(client, server, from, to);
            } catch (IOException error) {
                report("something that changes", false, error);
            }
        });
        thread.setDaemon(true);
        thread.start();
        return "127.0.0.1:" + listener.getLocalPort();
    }

    static void copy(Socket from, Socket to, String what, String by) {
        try {
            InputStream in = from.getInputStream();
            OutputStream out = to.getOutputStream();
            byte[] bytes = new byte[65536];
            for (int count = in.read(bytes); count >= 0; count = in.read(bytes)) {
                String text = new String(bytes, 0, count, StandardCharsets.ISO_8859_1);
                out.write(text.replace(what, by).getBytes(StandardCharsets.ISO_8859_1));
                out.flush();
            }
        } catch (IOException closed) {
            // The call is over.
        }
    }

    static void setClock(int seconds) throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(URI.create("http://" + endpoint + "/admin/faults"))
                .PUT(HttpRequest.BodyPublishers.ofString("{\"clockOffsetSeconds\":" + seconds + "}"))
                .build();
        HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.discarding());
    }

    public static void main(String[] arguments) throws Exception {
        endpoint = arguments[0];
        succeeds("attach", 1);
        succeeds("detach", 2);
        isRefused("wrong key", "AuthFailure.SignatureFailure", () -> switchSlaves(ID, "WRONG", 1, endpoint));
        isRefused("unknown key", "AuthFailure.SecretIdNotFound", () -> switchSlaves("AKIDSTRANGER", KEY, 1, endpoint));
        String changing = somethingThatChanges("phone-java-1", "phone-java-2");
        isRefused("changed body", "AuthFailure.SignatureFailure", () -> switchSlaves(ID, KEY, 1, changing));
        setClock(600);
        isRefused("old timestamp", "AuthFailure.SignatureExpire", () -> switchSlaves(ID, KEY, 1, endpoint));
        setClock(0);
        // The SDK's connection pool would keep the process alive.
        System.exit(failed ? 1 : 0);
    }
}

// The official Go SDK against a simulator of its own, whose clock it sets: go run . ENDPOINT, where ENDPOINT is HOST:PORT.
//
// Prints a line for each check; the exit code is 0 only if all pass.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common"
	sdkerrors "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/errors"
	tchttp "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/http"
	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/profile"
)

const (
	secretID  = "AKIDEXAMPLE"
	secretKey = "SECRETEXAMPLE"
	session   = "1326515201117065216"
)

var phones = []string{"phone-go-1", "phone-go-é"}

// changed alters the body after it was signed, as something on the way might.
type changed struct{}

func (changed) RoundTrip(request *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	request.Body = io.NopCloser(bytes.NewReader(bytes.Replace(body, []byte("phone-go-1"), []byte("phone-go-2"), 1)))
	return http.DefaultTransport.RoundTrip(request)
}

// switchSlaves makes one call; kind is 1 to attach, 2 to detach.
func switchSlaves(endpoint, id, key string, kind int, transport http.RoundTripper) ([]string, error) {
	settings := profile.NewClientProfile()
	settings.HttpProfile.Scheme = "HTTP"
	settings.HttpProfile.Endpoint = endpoint
	client := common.NewCommonClient(common.NewCredential(id, key), "ap-guangzhou", settings)
	if transport != nil {
		client.WithHttpTransport(transport)
	}
	request := tchttp.NewCommonRequest("gs", "2019-11-18", "SwitchCloudPhoneMultipleStreamSessionSlaves")
	if err := request.SetActionParameters(map[string]any{"SessionId": session, "Type": kind, "SlaveInstanceIds": phones}); err != nil {
		return nil, err
	}
	response := tchttp.NewCommonResponse()
	if err := client.Send(request, response); err != nil {
		return nil, err
	}
	var answer struct {
		Response struct{ SuccessInstanceIds []string }
	}
	err := json.Unmarshal(response.GetBody(), &answer)
	return answer.Response.SuccessInstanceIds, err
}

func setClock(endpoint string, seconds int) error {
	body := strings.NewReader(fmt.Sprintf(`{"clockOffsetSeconds":%d}`, seconds))
	request, err := http.NewRequest(http.MethodPut, "http://"+endpoint+"/admin/faults", body)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run . HOST:PORT")
		os.Exit(2)
	}
	endpoint, failed := os.Args[1], false
	report := func(name string, ok bool, seen any) {
		verdict := "ok"
		if !ok {
			verdict, failed = "FAILED", true
		}
		fmt.Printf("%s: %s: %v\n", verdict, name, seen)
	}
	succeeds := func(name string, kind int) {
		ids, err := switchSlaves(endpoint, secretID, secretKey, kind, nil)
		report(name, err == nil && slices.Equal(ids, phones), fmt.Sprint(ids, err))
	}
	isRefused := func(name, code, id, key string, transport http.RoundTripper) {
		_, err := switchSlaves(endpoint, id, key, 1, transport)
		refusal, ok := err.(*sdkerrors.TencentCloudSDKError)
		report(name, ok && refusal.Code == code && refusal.RequestId != "", fmt.Sprintf("%T %v", err, err))
	}
	succeeds("attach", 1)
	succeeds("detach", 2)
	isRefused("wrong key", "AuthFailure.SignatureFailure", secretID, "WRONG", nil)
	isRefused("unknown key", "AuthFailure.SecretIdNotFound", "AKIDSTRANGER", secretKey, nil)
	isRefused("changed body", "AuthFailure.SignatureFailure", secretID, secretKey, changed{})
	if err := setClock(endpoint, 600); err != nil {
		report("the simulator's clock", false, err)
	}
	isRefused("old timestamp", "AuthFailure.SignatureExpire", secretID, secretKey, nil)
	if err := setClock(endpoint, 0); err != nil {
		report("the simulator's clock", false, err)
	}
	if failed {
		os.Exit(1)
	}
}
